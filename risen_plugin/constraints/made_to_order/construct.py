"""Answers made to order: one that meets several constraints at once, one that misses a constraint.

They show that an instruction can be met, and serve as probes. They are right for code, not for a
reader: common words in no particular order. Every result has been checked by the constraints
themselves.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from risen_plugin.constraints.core import Constraint
from risen_plugin.constraints.families.copying import CopyingMultiple, CopySpanIdx, RepeatPhrase
from risen_plugin.constraints.families.detectable_format import OPTIONS
from risen_plugin.constraints.languages import SENTENCES
from risen_plugin.constraints.lexicon import FILLERS, OPENERS, PLAIN
from risen_plugin.constraints.made_to_order.draft import Draft, capitalised
from risen_plugin.constraints.text import plain_words

if TYPE_CHECKING:
    from risen_plugin.constraints.families.change_case import CapitalWordFrequency
    from risen_plugin.constraints.families.count import CountingComposition
    from risen_plugin.constraints.families.keywords import LetterFrequency
    from risen_plugin.constraints.families.length_constraints import (
        NthParagraphFirstWord,
        NumberSentences,
        NumberWords,
    )
    from risen_plugin.constraints.families.letters import LetterCounting
    from risen_plugin.constraints.language import ResponseLanguage

_TRIES = 40
_LESS = "less than"
_PALINDROMES = ("level", "radar", "civic", "kayak", "refer", "noon", "rotor", "stats")
_LOUD_TEXT = "STOP! Nothing of it, <<not even>> a title...\n\nOR IS IT?\n\n* One\n\n***\n\nTwo"


def satisfying(
    constraints: Sequence[Constraint], rng: random.Random, about: str = ""
) -> str | None:
    """A text that meets every one of the ``constraints``; None where none was found.

    None means that the constraints contradict one another, or that only a person would find an
    answer. The same state of ``rng`` gives the same text.

    :param about: words of this text are used where they do no harm.
    """
    for number in range(_TRIES):
        # The words of the question may be in the way.
        text = _written(constraints, rng, about if number < _TRIES // 2 else "")
        if all(constraint.check(text) for constraint in constraints):
            return text
    return None


def violating(constraint: Constraint, rng: random.Random) -> str:
    """A text, not blank, that the ``constraint`` refuses.

    :raises ValueError: if no such text was found, as for a constraint that every text meets.
    """
    values = [
        str(part)
        for value in constraint.kwargs.values()
        for part in (value if isinstance(value, list) else [value])
    ]
    most = max([9, *(value for value in constraint.kwargs.values() if isinstance(value, int))])
    words = rng.sample(PLAIN, 4)
    candidates = [
        f"{words[0].capitalize()} {words[1]}, {words[2]}! Also {words[3]}.",
        " ".join(words),
        _LOUD_TEXT,
        f"{words[0]} {words[0]}",
        "a b c",
        *values,
        " ".join(values),
        *(f"{value}. " * (most + 1) for value in (words[0], words[0].upper(), *values)),
    ]
    for text in candidates:
        if text.strip() and not constraint.check(text):
            return text
    raise ValueError(f"no text was found that constraint '{constraint.id}' refuses")


def _written(constraints: Sequence[Constraint], rng: random.Random, about: str) -> str:
    for constraint in constraints:
        if constraint.alone:
            return _copied(constraint)
    ids = {constraint.id: constraint for constraint in constraints}
    draft = Draft(_vocabulary(ids, rng, about))
    for constraint in constraints:
        need = _NEEDS.get(constraint.id)
        if need is not None:
            need(draft, constraint, rng)
    if not draft.loud_words and rng.random() < 0.5 and "count:lowercase_counting" in ids:
        draft.case = str.upper if "change_case:capital_word_frequency" not in ids else capitalised
    draft.mark = _mark(ids)
    draft.title_last = "keywords:keyword_specific_position" in ids or 0 in draft.paragraph_starts
    return draft.write(rng)


def _copied(constraint: Constraint) -> str:
    prompt = str(constraint.kwargs["prompt_to_repeat"])
    if isinstance(constraint, CopySpanIdx):
        return prompt[constraint.n_start : constraint.n_end]
    if isinstance(constraint, CopyingMultiple):
        return "\n******\n".join([prompt] * constraint.N)
    return prompt


def _mark(ids: Mapping[str, Constraint]) -> str:
    """The mark that ends a sentence."""
    if "punctuation:punctuation_dot" not in ids:
        return "."
    return "?" if "punctuation:punctuation_exclamation" in ids else "!"


def _vocabulary(ids: Mapping[str, Constraint], rng: random.Random, about: str) -> list[str]:
    """Words to fill up with: none that a constraint counts or forbids."""
    language = ids.get("language:response_language")
    if language is not None:
        in_language = SENTENCES.get(language.kwargs["language"], ())
        words = [word for sentence in in_language for word in plain_words(sentence)]
    else:
        spoken = [word.lower() for word in plain_words(about) if word.isascii() and word.isalpha()]
        words = [*FILLERS, *OPENERS, *PLAIN]
        words += [word for word in spoken if len(word) > 3] * 5
    counted = {
        word.casefold()
        for constraint in ids.values()
        for value in constraint.kwargs.values()
        for part in (value if isinstance(value, list) else [value])
        if isinstance(part, str) and len(part) < 200
        for word in plain_words(part)
    }
    words = [word for word in words if word.casefold() not in counted]
    words = _by_letters(words, ids, rng)
    return list(dict.fromkeys(words)) if "count:count_unique" in ids else words


def _by_letters(words: list[str], ids: Mapping[str, Constraint], rng: random.Random) -> list[str]:
    """The words without letters that must be rare, rich in those that must be frequent."""
    for id_ in ("keywords:letter_frequency", "letters:letter_counting2"):
        if id_ in ids:
            letter = ids[id_].kwargs["letter"].lower()
            rare = ids[id_].kwargs["let_relation"] == _LESS
            if not letter.isalnum():
                continue
            words = [word for word in words if (letter in word) != rare] or [letter]
    if "keywords:no_adjacent_consecutive" in ids:
        odd = rng.randrange(2)
        words = [word for word in words if ord(word[0]) % 2 == odd] or words
    return words


_Need = Callable[[Draft, Any, random.Random], None]


def _repeat(draft: Draft, word: str, count: int, relation: str) -> None:
    if relation != _LESS:
        draft.units += [word] * count


def _capital_words(draft: Draft, one: CapitalWordFrequency, rng: random.Random) -> None:
    if one.capital_relation != _LESS:
        draft.loud_words = one.capital_frequency + rng.choice((3, 0))  # hyphens may join some


def _words(draft: Draft, one: NumberWords, rng: random.Random) -> None:
    if one.relation != _LESS:
        draft.least_words = max(draft.least_words, one.num_words)


def _sentences(draft: Draft, one: NumberSentences, rng: random.Random) -> None:
    if one.relation != _LESS:
        draft.least_sentences = one.num_sentences


def _letters(draft: Draft, one: LetterCounting, rng: random.Random) -> None:
    if one.relation != _LESS:
        draft.least_letters = one.N


def _letter(draft: Draft, one: LetterFrequency, rng: random.Random) -> None:
    if one.let_relation == _LESS:
        return
    if one.letter.isalnum():
        draft.enough.append(one.check)
    else:  # no word has it
        words = [rng.choice(draft.vocabulary) for _ in range(one.let_frequency)]
        draft.units += [f"{one.letter}{word}" for word in words]


def _composition(draft: Draft, one: CountingComposition, rng: random.Random) -> None:
    draft.paragraphs, draft.divider = 3, "\n***\n"
    draft.sentences, draft.words_each = 3 * one.n_sent, one.n_words


def _nth_paragraph(draft: Draft, one: NthParagraphFirstWord, rng: random.Random) -> None:
    draft.paragraphs = one.num_paragraphs
    draft.paragraph_starts[one.nth_paragraph - 1] = one.first_word


def _repeated_phrase(draft: Draft, one: RepeatPhrase, rng: random.Random) -> None:
    for _ in range(one.small_n):
        words = plain_words(one.phrase)
        words[rng.randrange(1, len(words) - 1)] = rng.choice(draft.vocabulary)
        draft.units.append(" ".join(words))


def _language(draft: Draft, one: ResponseLanguage, rng: random.Random) -> None:
    in_language = SENTENCES.get(one.language, ())
    draft.units += [
        " ".join(plain_words(text)) for text in rng.sample(in_language, len(in_language))[:2]
    ]
    draft.enough.append(one.check)


def _divided(count: Callable[[Any], int], divider: str) -> _Need:
    def need(draft: Draft, one: Constraint, rng: random.Random) -> None:
        draft.paragraphs, draft.divider = count(one), divider

    return need


def _set(**values: Callable[[Any], Any]) -> _Need:
    """Set fields of the draft from the constraint."""

    def need(draft: Draft, one: Constraint, rng: random.Random) -> None:
        for name, value in values.items():
            setattr(draft, name, value(one))

    return need


def _unit(words: Callable[[Any], Sequence[str]]) -> _Need:
    """Words that the text has to contain."""

    def need(draft: Draft, one: Constraint, rng: random.Random) -> None:
        draft.units += words(one)

    return need


def _bigrams(draft: Draft, one: Constraint, rng: random.Random) -> None:
    draft.wrap, draft.least_words = "<<", max(draft.least_words, 2)


def _same_ends(draft: Draft, one: Constraint, rng: random.Random) -> None:
    draft.same_ends, draft.least_words = True, max(draft.least_words, 3)


def _yes(one: Constraint) -> bool:
    return True


_NEEDS: Mapping[str, _Need] = MappingProxyType(
    {
        "change_case:capital_word_frequency": _capital_words,
        "change_case:english_capital": _set(case=lambda one: str.upper),
        "change_case:english_lowercase": _set(case=lambda one: str.lower),
        "combination:repeat_prompt": _set(lead=lambda one: one.prompt_to_repeat),
        "combination:two_responses": _divided(lambda one: 2, "\n******\n"),
        "copy:repeat_phrase": _repeated_phrase,
        "count:count_increment_word": _unit(lambda one: [one.keyword1, one.keyword2, one.keyword2]),
        "count:count_unique": _set(unique=_yes),
        "count:counting_composition": _composition,
        "count:lowercase_counting": _set(case=lambda one: capitalised),
        "detectable_content:number_placeholders": _set(
            placeholders=lambda one: one.num_placeholders
        ),
        "detectable_content:postscript": _set(postscript=lambda one: one.postscript_marker),
        "detectable_format:bigram_wrapping": _bigrams,
        "detectable_format:constrained_response": _set(option=lambda one: OPTIONS[0]),
        "detectable_format:json_format": _set(as_json=_yes),
        "detectable_format:multiple_sections": _set(
            splitter=lambda one: one.section_spliter, sections=lambda one: one.num_sections
        ),
        "detectable_format:number_bullet_lists": _set(bullets=lambda one: one.num_bullets),
        "detectable_format:number_highlighted_sections": _set(
            highlights=lambda one: one.num_highlights
        ),
        "detectable_format:sentence_hyphens": _set(joint=lambda one: "-", sentences=lambda one: 2),
        "detectable_format:square_brackets": _set(wrap=lambda one: "["),
        "detectable_format:title": _set(title=_yes),
        "first_word:first_word_answer": _set(start=lambda one: one.first_word),
        "first_word:first_word_sent": _set(sentence_start=lambda one: one.first_word),
        "keywords:existence": _unit(lambda one: one.keywords),
        "keywords:frequency": lambda draft, one, rng: _repeat(
            draft, one.keyword, one.frequency, one.relation
        ),
        "keywords:keyword_specific_position": lambda draft, one, rng: draft.fixed_words.update(
            {one.n: (one.m, one.keyword)}
        ),
        "keywords:letter_frequency": _letter,
        "keywords:palindrome": lambda draft, one, rng: draft.units.append(rng.choice(_PALINDROMES)),
        "keywords:start_end": _same_ends,
        "keywords:word_count_different_numbers": lambda draft, one, rng: _repeat(
            draft, one.keyword, one.frequency, one.relation
        ),
        "keywords:word_once": _unit(lambda one: [one.keyword]),
        "language:response_language": _language,
        "last_word:last_word_answer": _set(end_word=lambda one: one.last_word),
        "last_word:last_word_sent": _set(sentence_end=lambda one: one.last_word),
        "length_constraints:nth_paragraph_first_word": _nth_paragraph,
        "length_constraints:number_paragraphs": _divided(lambda one: one.num_paragraphs, "\n***\n"),
        "length_constraints:number_sentences": _sentences,
        "length_constraints:number_words": _words,
        "letters:letter_counting": _letters,
        "letters:letter_counting2": _letter,
        "paragraphs:paragraphs": _divided(lambda one: 2, "\n***\n"),
        "paragraphs:paragraphs2": _divided(lambda one: 2, "\n\n"),
        "startend:end_checker": _set(end=lambda one: one.end_phrase),
        "startend:quotation": _set(quoted=_yes),
    }
)
