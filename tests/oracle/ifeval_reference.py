"""lm-eval's IFEval task as a reference, without what it would have to download.

Only its checks are loaded: the package's task manager, which brings much else, is left out. Two
parts are stood in for. nltk's English sentence model (punkt) is replaced by nltk's own Punkt
algorithm with a list of abbreviations in place of the trained model; it serves the sentence count,
and the word tokenizer, which splits sentences first. langdetect is seeded, since it draws lots.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

NEEDED = ("lm_eval", "langdetect", "nltk", "immutabledict")
ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "st", "vs", "e.g", "i.e", "etc", "cf", "inc")


def missing() -> list[str]:
    """The packages that the reference needs and that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


@functools.cache
def _task() -> Any:
    """The module with IFEval's strict and loose scoring."""
    import langdetect
    import nltk
    from nltk.tokenize.destructive import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    langdetect.DetectorFactory.seed = 0
    package = types.ModuleType("lm_eval.tasks")
    found = importlib.util.find_spec("lm_eval")
    assert found is not None
    assert found.origin is not None
    package.__path__ = [str(Path(found.origin).parent / "tasks")]
    sys.modules.setdefault("lm_eval.tasks", package)
    find, nltk.data.find = nltk.data.find, lambda *names, **options: None
    try:
        task = importlib.import_module("lm_eval.tasks.ifeval.utils")
        util = importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
    finally:
        nltk.data.find = find
    parameters = PunktParameters()
    parameters.abbrev_types = set(ABBREVIATIONS)
    splitter = PunktSentenceTokenizer(parameters)
    words = NLTKWordTokenizer()
    util._get_sentence_tokenizer = lambda: splitter
    util.nltk = types.SimpleNamespace(
        tokenize=nltk.tokenize,
        word_tokenize=lambda text: [
            word for sentence in splitter.tokenize(text) for word in words.tokenize(sentence)
        ],
    )
    return task


def verdict(id_: str, kwargs: dict[str, Any], text: str, prompt: str) -> tuple[bool, bool]:
    """Whether the reference says that ``text`` meets the instruction, strictly and loosely."""
    task = _task()
    row = task.InputExample(0, [id_], prompt, [kwargs])
    strict = task.test_instruction_following_strict(row, text)
    loose = task.test_instruction_following_loose(row, text)
    return strict.follow_all_instructions, loose.follow_all_instructions


@functools.lru_cache(maxsize=100_000)
def language(text: str) -> str | None:
    """What the reference's detector says; None where it fails, which the reference lets pass."""
    import langdetect

    _task()
    try:
        return str(langdetect.detect(text))
    except langdetect.LangDetectException:
        return None
