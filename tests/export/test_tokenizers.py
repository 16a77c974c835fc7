"""A bundle's tokenizer files cut text as the source does; templates are tried before a build."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from risen_export.merging.tokenizers import encode_prompt, encode_prompts, faithful
from risen_export.runtime.chat import ChatTokenizer
from risen_plugin.errors import DataError, ExportError

TEXTS = (" two  spaces ", "Grüße e\u0301 日本 🙂", "a\n\n b", "<s>hi</s> <|im_end|>x")
CHAT = [{"role": "user", "content": "hi there"}]
REFUSES = "{{ raise_exception('nobody may speak') }}"
WANTS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('who am I?') }}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
)


def read(folder: Path, tokenizer: Any) -> tuple[ChatTokenizer, dict[str, Any]]:
    """The bundle's own reader of a tokenizer's files, and ``tokenizer_config.json``."""
    faithful(tokenizer, "mine").write(folder)
    return ChatTokenizer(folder), json.loads((folder / "tokenizer_config.json").read_text())


def sentencepiece(folder: Path, *, name: str = "LlamaTokenizer", **settings: Any) -> Any:
    """A tokenizer as those that were converted from SentencePiece, its class's name in a file."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import AutoTokenizer

    pieces = ["<unk>", "<s>", "</s>", "\u2581", *"abcdefghijklmnopqrstuvwxyz[]/INST", "\u2581h"]
    model = models.BPE(
        vocab={piece: index for index, piece in enumerate(dict.fromkeys(pieces))},
        merges=[("\u2581", "h")],
        unk_token="<unk>",
        fuse_unk=True,
    )
    raw = Tokenizer(model)
    raw.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder.mkdir()
    raw.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    template = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": name, "chat_template": template, **tokens, **settings})
    )
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("settings", [{"legacy": True}, {"legacy": False}, {}], ids=str)
def test_sentencepiece_tokenizers_are_read_as_they_are(
    settings: dict[str, bool], tmp_path: Path
) -> None:
    """transformers rebuilds a ``LlamaTokenizer`` by ``legacy``, when it is loaded once more."""
    from transformers import AutoTokenizer

    source = sentencepiece(tmp_path / "source", **settings)
    ours, _ = read(tmp_path / "files", source)
    again = AutoTokenizer.from_pretrained(tmp_path / "files")
    for text in TEXTS:
        assert ours.encode(text) == source(text)["input_ids"] == again(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == source.decode(
            source(text)["input_ids"], skip_special_tokens=True
        )
    expected = source.apply_chat_template(CHAT, tokenize=False)
    assert ours.encode(CHAT) == source(expected, add_special_tokens=False)["input_ids"]


def test_the_files_have_the_form_that_transformers_4_reads(tokenizer: Any, tmp_path: Path) -> None:
    """There extra_special_tokens is a mapping, and newer classes do not exist."""
    _, settings = read(tmp_path, tokenizer)
    assert not isinstance(settings.get("extra_special_tokens"), list)
    assert settings["additional_special_tokens"] == tokenizer.extra_special_tokens
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert settings["model_input_names"] == ["input_ids", "attention_mask"]
    assert settings["chat_template"] == tokenizer.chat_template
    assert not {"is_local", "local_files_only", "name_or_path"} & set(settings)


def test_special_tokens_survive_the_form_for_transformers_4(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    read(tmp_path, tokenizer)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.extra_special_tokens == tokenizer.extra_special_tokens
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert (again.padding_side, len(again)) == (tokenizer.padding_side, len(tokenizer))


def test_a_prefix_space_is_not_lost_to_transformers_4(tokenizer: Any, tmp_path: Path) -> None:
    """It takes a missing ``add_prefix_space`` for false, whatever tokenizer.json says."""
    from transformers import GPT2Tokenizer

    with_space = GPT2Tokenizer(
        vocab={**tokenizer.get_vocab()}, merges=[], add_prefix_space=True, eos_token="<|im_end|>"
    )
    _, settings = read(tmp_path, with_space)
    assert settings["add_prefix_space"] is True


def test_a_tokenizer_that_does_more_than_its_file_says_is_refused(tokenizer: Any) -> None:
    import copy

    class Odd(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, text: str, *more: Any, **options: Any) -> Any:
            return super().__call__(text.lower(), *more, **options)

    odd = copy.deepcopy(tokenizer)
    odd.__class__ = Odd
    with pytest.raises(ExportError, match=r"tokenizer of mine \(Odd\) cuts 'Who ordered 12 red"):
        faithful(odd, "mine")


def test_a_tokenizer_that_writes_other_text_than_its_file_is_refused(tokenizer: Any) -> None:
    import copy

    class Odd(type(tokenizer)):  # type: ignore[misc]
        def decode(self, *given: Any, **options: Any) -> Any:
            return super().decode(*given, **options).replace("Who", "Hoo")

    odd = copy.deepcopy(tokenizer)
    odd.__class__ = Odd
    with pytest.raises(ExportError, match=r"\(Odd\) writes the tokens of 'Who ordered 12 red"):
        faithful(odd, "mine")


def test_a_tokenizer_without_a_fast_form_is_refused_by_its_class() -> None:
    from transformers import ByT5Tokenizer

    with pytest.raises(ExportError, match=r"of mine \(ByT5Tokenizer\) has no fast form"):
        faithful(ByT5Tokenizer(), "mine")


@pytest.mark.slow
def test_a_tokenizer_is_tried_before_weights_are_read(
    saved: Callable[..., Path],
    model_of: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from risen_export.merging import merge
    from risen_export.merging.source import resolve

    folder = saved(model_of(tokenizer), tmp_path)
    (folder / "tokenizer.json").write_text("{")
    monkeypatch.setattr(merge, "_loaded", lambda _: pytest.fail("weights were read"))
    with pytest.raises(ExportError, match=r"the tokenizer in .* cannot be loaded"):
        merge.load(resolve(folder))


# Templates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (REFUSES, r"template of mine refuses messages \(nobody may speak\)"),
        ("{{ messages | no_such_filter }}", r"refuses messages \(No filter named 'no_such_filter'"),
        ("{% for", r"template of mine refuses messages \("),
        ("{{ messages[7].content }}", r"template of mine refuses messages \("),
        ({"chat": "x", "tool_use": "y"}, r"templates 'chat', 'tool_use' and none named 'default'"),
    ],
    ids=["refuses", "unknown filter", "broken", "reads too far", "no default"],
)
def test_a_template_that_cannot_be_used_is_said_in_a_note(
    template: Any, said: str, tokenizer: Any, tmp_path: Path
) -> None:
    import copy

    odd = copy.deepcopy(tokenizer)
    odd.chat_template = template
    files = faithful(odd, "mine")
    [note] = files.notes
    assert re.search(said, note)
    files.write(tmp_path)
    with pytest.raises(DataError):  # one line for whoever asks the bundle
        ChatTokenizer(tmp_path).encode(CHAT)
    assert ChatTokenizer(tmp_path).encode("hi") == tokenizer("hi")["input_ids"]


def test_of_named_templates_the_default_one_is_used(tokenizer: Any, tmp_path: Path) -> None:
    import copy

    named = copy.deepcopy(tokenizer)
    named.chat_template = {"default": tokenizer.chat_template, "tool_use": "x"}
    files = faithful(named, "mine")
    assert files.notes == ()
    files.write(tmp_path)
    expected = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert ChatTokenizer(tmp_path).render(CHAT) == expected


def test_a_template_that_writes_the_time_is_no_difference(tokenizer: Any) -> None:
    import copy

    clock = copy.deepcopy(tokenizer)
    clock.chat_template = "{{ strftime_now('%d %B %Y %H:%M') }} {{ messages[-1].content }}"
    assert faithful(clock, "mine").notes == ()


def test_a_template_that_renders_otherwise_without_transformers_is_refused(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = ChatTokenizer.render
    monkeypatch.setattr(
        ChatTokenizer, "render", lambda self, *given, **more: honest(self, *given, **more) + " "
    )
    with pytest.raises(ExportError, match="chat template of mine renders otherwise without transf"):
        faithful(tokenizer, "mine")


@pytest.mark.parametrize(
    ("template", "rendered", "reason"),
    [
        ("{{ messages[0].content }}!", "hi!", ""),
        (WANTS_SYSTEM, "system: Be helpful.\nuser: hi\n", ""),
        (REFUSES, "hi", "its chat template refuses messages: nobody may speak"),
        ({"chat": "x"}, "hi", "it has no default chat template"),
        (None, "hi", "it has no chat template"),
    ],
    ids=["chat", "wants a system message", "refuses", "no default", "none"],
)
def test_questions_to_a_model_are_chats_where_its_template_takes_them(
    template: Any, rendered: str, reason: str, tokenizer: Any
) -> None:
    import copy

    asked = copy.deepcopy(tokenizer)
    asked.chat_template = template
    assert encode_prompts(asked, ["hi"]) == ([tokenizer(rendered)["input_ids"]], reason)


def test_a_prompt_that_a_person_gave_is_not_replaced_by_text(tokenizer: Any) -> None:
    import copy

    odd = copy.deepcopy(tokenizer)
    odd.chat_template = REFUSES
    with pytest.raises(ExportError, match="template refuses a prompt to verify with: nobody may"):
        encode_prompt(odd, CHAT)
    assert encode_prompt(odd, "hi") == tokenizer("hi")["input_ids"]


# Configurations ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "rope", "older"),
    [
        ("Qwen2", {"rope_type": "default", "rope_theta": 5e5}, {"rope_theta": 5e5}),
        (
            "Llama",
            {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            {"rope_theta": 5e5, "rope_scaling": ["rope_type", "factor"]},
        ),
        ("Qwen2", {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0}, {"rope_theta": 1e6}),
    ],
    ids=["theta", "llama3", "linear"],
)
def test_a_configuration_names_its_rope_as_transformers_4_does(
    kind: str,
    rope: dict[str, Any],
    older: dict[str, Any],
    *,
    model_of: Callable[..., Any],
    tokenizer: Any,
    tmp_path: Path,
) -> None:
    from transformers import AutoConfig

    from risen_export.merging import merge, saving

    model = model_of(tokenizer, kind, rope_parameters=rope)
    saving.save(merge.from_memory(model, tokenizer, name="mine"), tmp_path / "merged")
    written = json.loads((tmp_path / "merged" / saving.CLIENT / "config.json").read_text())
    assert written["rope_theta"] == older["rope_theta"]
    for key in older.get("rope_scaling", []):
        assert written["rope_scaling"][key] == rope[key]
    read_by_5 = AutoConfig.from_pretrained(tmp_path / "merged" / saving.CLIENT)
    assert read_by_5.rope_parameters == rope
    assert "_name_or_path" not in written


@pytest.mark.slow
def test_an_older_name_that_transformers_5_refuses_beside_its_own_is_left_out(
    tokenizer: Any, tmp_path: Path
) -> None:
    from risen_export.merging import merge, saving
    from tests.export.architectures import BY_NAME, model_of

    model = model_of(BY_NAME["gemma4"])  # its rotary tables are by the kind of layer
    saving.save(merge.from_memory(model, tokenizer, name="mine"), tmp_path / "merged")
    written = json.loads((tmp_path / "merged" / saving.CLIENT / "config.json").read_text())
    assert "rope_scaling" not in written
    assert written["rope_parameters"] == model.config.to_dict()["rope_parameters"]
