"""Programs that nobody here wrote answer from a bundle as PyTorch answers from the model.

Each is asked for the greedy tokens of 20 prompts of varied length, one by one and as one batch that
the program pads itself. Three need what the other tests do not: RISEN_OPTIMUM_PYTHON names a Python
with optimum-onnx, RISEN_NODE a folder where ``npm install @huggingface/transformers`` was run, and
RISEN_GENAI_EXAMPLES the folder examples/python of onnxruntime-genai's repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .stepping import logits_after, open_graph

pytestmark = pytest.mark.slow
NEW_TOKENS = 12
HERE = Path(__file__).parent / "clients"
WORDS = "Tero in Kofu ordered twelve red lamps, and order 51234 is late; who pays the invoice?"
# 20 lengths from 1 to 85 letters, which are tokens here, in no order.
PROMPTS = [WORDS[: 1 + (37 * place) % len(WORDS)] for place in range(20)]


@pytest.fixture(scope="module")
def prompts(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]


@pytest.fixture(scope="module")
def expected(tied_model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """What PyTorch answers to each prompt alone, before its end of text."""
    import torch

    answers = []
    for row in prompts:
        ids = torch.tensor([row])
        made = tied_model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
        answers.append(made[0, len(row) :].tolist())
    return until_end(answers, tied_model.config.eos_token_id)


def until_end(answers: list[list[int]], eos: int) -> list[list[int]]:
    """The answers before their end of text; clients fill shorter rows of a batch up."""
    return [row[: row.index(eos)] if eos in row else row for row in answers]


def needed(variable: str, what: str) -> str:
    """The value of an environment variable; skips the test where it is not set."""
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} does not name {what}")
    return value


def ask(command: Sequence[str], folder: Path, cwd: Path | None = None) -> dict[str, Any]:
    """The answers of a program in ``clients/``, run beside this one."""
    asked = {"folder": str(folder), "prompts": PROMPTS, "new_tokens": NEW_TOKENS}
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, cwd=cwd, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


@pytest.mark.parametrize("left", [True, False], ids=["left", "right"])
def test_plain_onnxruntime(
    left: bool, tied_bundle: Path, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    session = open_graph(tied_bundle / "fp32" / "model.onnx")
    forced = np.array([[*row, *[0] * (NEW_TOKENS - len(row))] for row in expected])
    batch = logits_after(session, prompts, forced, left=left).argmax(-1).tolist()
    for line, (row, answer) in enumerate(zip(prompts, expected, strict=True)):
        alone = logits_after(session, [row], forced[line : line + 1], left=left).argmax(-1)
        assert batch[line][: len(answer)] == alone[0, : len(answer)].tolist() == answer


def genai_answers(model: Any, texts: list[str]) -> list[list[int]]:
    """Greedy tokens of onnxruntime-genai for a batch of texts, which it pads itself."""
    import onnxruntime_genai

    ids = onnxruntime_genai.Tokenizer(model).encode_batch(texts).as_numpy()
    params = onnxruntime_genai.GeneratorParams(model)
    width = ids.shape[1]
    params.set_search_options(do_sample=False, batch_size=len(texts), max_length=width + NEW_TOKENS)
    generator = onnxruntime_genai.Generator(model, params)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    sequences = [generator.get_sequence(line) for line in range(len(texts))]
    return [[int(token) for token in sequence[width:]] for sequence in sequences]


def test_onnxruntime_genai(tied_bundle: Path, tokenizer: Any, expected: list[list[int]]) -> None:
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(tied_bundle / "fp32"))
    eos = tokenizer.eos_token_id
    assert until_end(genai_answers(model, PROMPTS), eos) == expected
    assert until_end([genai_answers(model, [text])[0] for text in PROMPTS], eos) == expected


def test_sample_program_of_onnxruntime_genai(
    tied_bundle: Path, prompts: list[list[int]], expected: list[list[int]]
) -> None:
    folder = Path(needed("RISEN_GENAI_EXAMPLES", "examples/python of onnxruntime-genai"))
    import onnxruntime_genai

    bundle = str(tied_bundle / "fp32")
    tokenizer = onnxruntime_genai.Tokenizer(onnxruntime_genai.Model(bundle))
    for chosen in (slice(0, 1), slice(0, 6)):
        width = max(map(len, prompts[chosen]))
        program = [sys.executable, "model-generate.py", "-m", bundle, "-e", "cpu"]
        program += ["--max_length", str(width + NEW_TOKENS), "-pr", *PROMPTS[chosen]]
        done = subprocess.run(program, cwd=folder, capture_output=True, check=True)
        for prompt, answer in zip(prompts[chosen], expected[chosen], strict=True):
            text = tokenizer.decode(np.array(prompt + answer, dtype=np.int32))
            assert text.encode() in done.stdout


def test_optimum(tied_bundle: Path, tokenizer: Any, expected: list[list[int]]) -> None:
    python = needed("RISEN_OPTIMUM_PYTHON", "a Python with optimum-onnx")
    answers = ask([python, str(HERE / "with_optimum.py")], tied_bundle / "fp32")
    for found in answers.values():
        assert until_end(found, tokenizer.eos_token_id) == expected


@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_transformers_js(
    variant: str, tied_bundle: Path, tokenizer: Any, expected: list[list[int]]
) -> None:
    needed("RISEN_NODE", "a folder with transformers.js")
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on the PATH")
    answers = ask([node, str(HERE / "with_transformers.cjs")], tied_bundle / variant)
    eos = tokenizer.eos_token_id
    single, batch = until_end(answers["single"], eos), until_end(answers["batch"], eos)
    assert single == batch
    if variant == "fp32":
        assert single == expected
