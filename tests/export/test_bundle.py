"""Answers of a batch equal those of single prompts, and prompts read as in training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from risen_export import Bundle
from risen_export.runtime import chat
from risen_export.runtime.bundle import sampler
from risen_export.runtime.chat import ChatTokenizer
from risen_plugin.errors import DataError, ExportError

pytestmark = pytest.mark.slow
PROMPTS = ["a", "Hello there,", "A rather longer prompt than the others are", "0123456789"]


@pytest.fixture(scope="module")
def bundle(tied_bundle: Path) -> Bundle:
    return Bundle.open(tied_bundle, threads=1)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_a_right_padded_batch_equals_single_prompts(bundle: Bundle, batch_size: int) -> None:
    rows = [bundle.tokenizer.encode(prompt) for prompt in PROMPTS]
    alone = [bundle.generate_ids([row], max_new_tokens=24, ignore_eos=True)[0] for row in rows]
    together = bundle.generate_ids(rows, max_new_tokens=24, ignore_eos=True, batch_size=batch_size)
    assert together == alone


def test_logits_of_a_short_row_do_not_depend_on_its_neighbours(bundle: Bundle) -> None:
    ids = np.full((2, 12), 7, dtype=np.int64)
    ids[1, 5:] = 0
    padded = bundle.logits(ids, [12, 5])
    np.testing.assert_allclose(padded[1, :5], bundle.logits(ids[1:, :5])[0], atol=1e-5)


def test_rows_that_end_leave_the_others_as_they_are(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [bundle.tokenizer.encode(prompt) for prompt in PROMPTS]
    whole = bundle.generate_ids(rows, max_new_tokens=24, ignore_eos=True)
    # Let the tokens that come up at different places in different rows end the answers.
    stops = frozenset({whole[0][3], whole[1][9], whole[2][15]})
    monkeypatch.setattr(bundle, "eos_ids", stops)
    cut = [
        answer[: next((place for place, token in enumerate(answer) if token in stops), 24)]
        for answer in whole
    ]
    assert len({len(answer) for answer in cut}) > 1
    assert bundle.generate_ids(rows, max_new_tokens=24) == cut


def test_the_model_answers_as_transformers_does(
    bundle: Bundle, tied_model: Any, tokenizer: Any
) -> None:
    import torch

    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        theirs = tied_model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False
        )[0, ids.shape[1] :]
        text = tokenizer.decode(theirs, skip_special_tokens=True)
        assert bundle.generate([prompt], max_new_tokens=32) == [text]


def test_draws_depend_on_the_seed_and_not_on_the_batch(bundle: Bundle) -> None:
    def draw(seed: int, batch_size: int) -> list[str]:
        return bundle.generate(
            PROMPTS, max_new_tokens=8, do_sample=True, seed=seed, batch_size=batch_size
        )

    assert draw(1, 4) == draw(1, 1)
    assert draw(1, 4) != draw(2, 4)


def test_draws_follow_the_softmax(bundle: Bundle) -> None:
    row = bundle.tokenizer.encode("Hello")
    logits = bundle.logits(np.array([row]))[0, -1].astype(np.float64)
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    count = 4000
    draws = bundle.generate_ids(
        [row] * count, max_new_tokens=1, ignore_eos=True, pick=sampler(0, 1.0), batch_size=256
    )
    share = draws.count([int(expected.argmax())]) / count
    spread = np.sqrt(expected.max() * (1 - expected.max()) / count)
    assert abs(share - expected.max()) < 5 * spread


def test_temperature_zero_is_greedy(bundle: Bundle) -> None:
    drawn = bundle.generate(PROMPTS, max_new_tokens=8, do_sample=True, temperature=0)
    assert drawn == bundle.generate(PROMPTS, max_new_tokens=8)


def test_an_answer_ends_with_the_context(bundle: Bundle) -> None:
    row = [5] * 250
    assert len(bundle.generate_ids([row], max_new_tokens=64, ignore_eos=True)[0]) == 6


@pytest.mark.parametrize("length", [256, 300])
def test_a_prompt_as_long_as_the_context_is_refused(bundle: Bundle, length: int) -> None:
    with pytest.raises(DataError, match=f"prompt 1 has {length} tokens .*context is 256"):
        bundle.generate_ids([[1], [5] * length])


def test_an_empty_prompt_is_refused(bundle: Bundle) -> None:
    with pytest.raises(DataError, match="prompt 0 is empty"):
        bundle.generate([""])


def test_no_prompts_give_no_answers(bundle: Bundle) -> None:
    assert bundle.generate([]) == []


@pytest.mark.parametrize(
    ("path", "precision", "said"),
    [
        ("", "int4", r"has no precision 'int4'; did you mean 'int8'\? It has: fp32, int8"),
        ("int8", "fp32", "is int8, not 'fp32'"),
        ("nothing", None, "is not a bundle.*risen export"),
        ("int", None, r"is not a bundle: there is no such folder; did you mean '.*int8'\?$"),
    ],
)
def test_what_cannot_be_opened_is_said(
    tied_bundle: Path, path: str, precision: str | None, said: str
) -> None:
    with pytest.raises(ExportError, match=said):
        Bundle.open(tied_bundle / path, precision)


TEMPLATES = {
    "blocks": (
        "{%- for message in messages %}\n    {%- if loop.first and message.role == 'system' %}\n"
        "S: {{ message['content'] | trim }}\n    {% continue %}\n    {%- endif %}\n"
        "{{ message['role'] }}: {% generation %}{{ message['content'] }}{% endgeneration %}\n"
        "{%- endfor %}{% if add_generation_prompt %}\nassistant: {% endif %}"
    ),
    "tokens": "{{ eos_token }}{{ messages | tojson }}{{ messages[0]['content'] | upper }}",
    "defaults": (
        "{% if tools is not none %}T{% endif %}{% if x is defined %}X{% endif %}"
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.n }}{{ bos_token }}|{{ pad_token }}"
    ),
}
CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "Grüße & <b>"}],
    [{"role": "system", "content": " be brief \n"}, {"role": "user", "content": "x\n\ny"}],
]


@pytest.mark.parametrize("template", [None, *TEMPLATES])
@pytest.mark.parametrize("chat", CHATS, ids=["user", "system and user"])
@pytest.mark.parametrize("prompting", [True, False])
def test_templates_render_as_in_transformers(
    template: str | None,
    chat: list[dict[str, str]],
    prompting: bool,
    tied_bundle: Path,
    tmp_path: Path,
) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tied_bundle / "fp32")
    if template is not None:
        theirs.chat_template = TEMPLATES[template]
    theirs.save_pretrained(tmp_path)
    ours = ChatTokenizer(tmp_path)
    expected = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompting)
    assert ours.render(chat, add_generation_prompt=prompting) == expected
    if prompting:
        ids = theirs.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]
        assert ours.encode(chat) == ids


def test_a_template_that_refuses_is_one_line(tied_bundle: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tied_bundle / "fp32")
    theirs.chat_template = "{{ raise_exception('only users speak here') }}"
    theirs.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="refused the messages: only users speak here"):
        ChatTokenizer(tmp_path).encode(CHATS[0])


def test_messages_need_a_template(tied_bundle: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tied_bundle / "fp32")
    theirs.chat_template = None
    theirs.save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"no chat template.*--raw"):
        ChatTokenizer(tmp_path).encode(CHATS[0])


def test_a_tokenizer_saved_with_truncation_cuts_nothing(tied_bundle: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tied_bundle / "fp32")
    theirs.backend_tokenizer.enable_truncation(4)
    theirs.save_pretrained(tmp_path)
    assert len(ChatTokenizer(tmp_path).encode("0123456789")) == 10


@pytest.mark.parametrize(
    ("expression", "letters", "said"),
    [
        # Each match takes thousandths of a second, and there is one for each letter.
        ("(a+)(a+)(a+)(?<!a)", 200, r"tokenizer\.json was stopped after 0\.\d+ s of encoding"),
        (r"(a+)+\1$", 60, r"tokenizer\.json cannot encode the text: .*retry-limit-in-match over$"),
    ],
)
def test_an_expression_of_a_tokenizer_that_runs_without_end_is_stopped(
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expression: str,
    letters: int,
    said: str,
) -> None:
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalizer"] = {
        "type": "Replace",
        "pattern": {"Regex": expression},
        "content": "x",
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(chat, "SECONDS", 0.1 if letters == 200 else 60.0)
    with pytest.raises(DataError, match=said):
        ChatTokenizer(tmp_path).encode("a" * letters + "b")
    assert ChatTokenizer(tmp_path).encode("who") != []
