"""The language of an answer: IFEval's ``language`` family.

Languages are told apart by py3langid, a naive Bayes classifier over bytes whose model comes with
its package: the same text has the same language everywhere and always.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from risen_plugin.constraints.core import Constraint, Kind
from risen_plugin.constraints.languages import IFEVAL, NAMES
from risen_plugin.errors import near_miss

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_NO_LANGUAGE = "zxx"
_LEAST_PROBABILITY = 0.2  # of 150 short sentences in IFEval's languages the lowest had 0.30
_VARIANTS = {"zh-cn": "zh", "zh-tw": "zh"}


def _code(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    code = value.strip().casefold()
    code = _VARIANTS.get(code, code)
    if code not in NAMES:
        raise ValueError(f"unknown language {value!r}{near_miss(code, NAMES)}")
    return code


Language: TypeAlias = Annotated[str, Kind("the code of a known language, such as 'de'", _code)]


@dataclass(frozen=True)
class ResponseLanguage(Constraint):
    """The answer is in the language. A text that cannot be identified does not pass."""

    language: Language

    id = "language:response_language"
    wordings = (
        "Your entire answer must be in {name}.",
        "Answer in {name} and in no other language.",
        "Write your whole answer in {name}; no other language is allowed.",
    )
    conflicts = frozenset(
        {
            "change_case:capital_word_frequency",
            "change_case:english_capital",
            "change_case:english_lowercase",
            "copy:repeat_phrase",
            "count:count_increment_word",
            "count:count_unique",
            "count:counting_composition",
            "count:lowercase_counting",
            "detectable_format:constrained_response",
            "detectable_format:multiple_sections",
            "first_word:first_word_answer",
            "first_word:first_word_sent",
            "keywords:keyword_specific_position",
            "keywords:no_adjacent_consecutive",
            "keywords:palindrome",
            "keywords:start_end",
            "keywords:word_count_different_numbers",
            "keywords:word_once",
            "last_word:last_word_answer",
            "last_word:last_word_sent",
            "length_constraints:nth_paragraph_first_word",
            "letters:letter_counting2",
            "startend:end_checker",
        }
    )

    def met(self, text: str) -> bool:
        return language_of(text) == self.language

    def seen(self, text: str) -> str:
        code = language_of(text)
        return NAMES[code] if code else "no language that could be identified"

    def named(self) -> dict[str, Any]:
        return {"language": self.language, "name": NAMES[self.language]}

    @classmethod
    def sample(cls, rng: random.Random, prompt: str) -> dict[str, Any]:
        return {"language": rng.choice(IFEVAL)}


def language_of(text: str) -> str | None:
    """The code of the most probable language; None where none can be identified.

    The first call takes about a second, for the model.
    """
    if not any(map(str.isalpha, text)):
        return None
    code, probability = _identifier().classify(text)
    return None if code == _NO_LANGUAGE or probability < _LEAST_PROBABILITY else str(code)


@functools.cache
def _identifier() -> LanguageIdentifier:
    """An identifier of our own: the package's global one has settings that anyone may change."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([*NAMES, _NO_LANGUAGE])
    return identifier
