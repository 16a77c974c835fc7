"""The plain prompts and facts of the package: many, of many kinds, alike in nothing."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from risen_plugin.builtin.generators import Constraints, Jsonl
from risen_plugin.contracts import text_of
from risen_plugin.instructions.plain import (
    PLAIN,
    exact_file,
    exact_tasks,
    facts,
    facts_file,
    plain_file,
    plain_prompts,
    questions_file,
    short_questions,
)
from risen_plugin.instructions.validity.words import words_of
from tools.plain_prompts import main as compare

# Most of the word pairs that two prompts, or two facts, may have in common (Jaccard).
NEAR_PROMPTS = 0.4
ABOUT_FORM = re.compile(
    r"\b(words?|sentences?|paragraphs?|bullets?|headings?|headlines?|titles?|commas?|"
    r"lower-?case|upper-?case|capitals?|json|markdown|highlight\w*|quotation\w*|quotes?|"
    r"placeholders?|brackets?|postscript|sections?|keywords?|stanzas?|syllables?|at least|"
    r"at most|no more than|exactly|format\w*|repeat\w*|must|do not use|letters? [a-z])\b",
    re.IGNORECASE,
)
# "must" of a person, and what is said in a passage
NO_FORM = {
    "You are the captain of a spaceship and must tell your crew that the trip will take two "
    "years longer. Speak to them.",
    "Rewrite without technical terms: The router's firmware must be updated because a "
    "vulnerability lets attackers bypass authentication.",
}


def pairs(text: str) -> set[tuple[str, ...]]:
    words = words_of(text)
    return set(itertools.pairwise(words))


def test_there_are_many_prompts_of_many_kinds() -> None:
    rows = [json.loads(line) for line in plain_file().read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == list(plain_prompts())
    assert len(rows) >= 440
    kinds = Counter(row["kind"] for row in rows)
    assert len(kinds) >= 30
    assert max(kinds.values()) <= len(rows) / 15


def test_prompts_are_of_moderate_length_and_plain_text() -> None:
    for prompt in plain_prompts():
        assert prompt == " ".join(prompt.split())
        assert 3 <= len(words_of(prompt)) <= 80, prompt


def test_no_two_prompts_are_near_to_one_another() -> None:
    prompts = {prompt: pairs(prompt) for prompt in plain_prompts()}
    assert len(prompts) == len(plain_prompts())
    for (one, a), (other, b) in itertools.combinations(prompts.items(), 2):
        assert len(a & b) < NEAR_PROMPTS * len(a | b), (one, other)


def test_no_prompt_asks_for_a_form_itself() -> None:
    asking = {prompt for prompt in plain_prompts() if ABOUT_FORM.search(prompt)}
    assert asking == NO_FORM


def test_there_are_enough_facts_and_none_is_trained_on() -> None:
    prompts = [fact.prompt for fact in facts()]
    assert len(prompts) == len(set(prompts)) >= 60
    assert not set(prompts) & set(plain_prompts())
    rows = facts_file().read_text(encoding="utf-8").splitlines()
    assert all(set(json.loads(row)) == {"prompt", "accepted"} for row in rows)


def test_the_short_questions_are_neither_facts_nor_prompts() -> None:
    """A phase is held to the answers to them, so that facts stay a measure of the others."""
    rows = [json.loads(line) for line in questions_file().read_text("utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == list(short_questions())
    asked = {tuple(words_of(question)) for question in short_questions()}
    assert len(asked) == len(short_questions()) >= 250
    measured = {tuple(words_of(fact.prompt)) for fact in facts()}
    assert not asked & (measured | {tuple(words_of(prompt)) for prompt in plain_prompts()})
    assert max(map(len, asked)) <= 15


def test_the_exact_tasks_are_neither_facts_nor_prompts_nor_questions() -> None:
    rows = [json.loads(line) for line in exact_file().read_text("utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == list(exact_tasks())
    asked = {tuple(words_of(task)) for task in exact_tasks()}
    assert len(asked) == len(exact_tasks()) >= 100
    others = [*plain_prompts(), *short_questions(), *(fact.prompt for fact in facts())]
    assert not asked & {tuple(words_of(other)) for other in others}


def test_every_accepted_answer_is_accepted_and_ignorance_is_not() -> None:
    for fact in facts():
        assert fact.accepted
        for right in fact.accepted:
            assert right == right.lower()
            assert fact.is_told_by(right)
            assert fact.is_told_by(f"I think that it is **{right.upper()}**, of course.")
            assert not fact.is_told_by(f"It is x{right}x.")
        for wrong in ("", "I do not know.", "I don't know", "Sorry, I cannot help with that."):
            assert not fact.is_told_by(wrong), fact.prompt


def test_no_question_tells_its_own_answer() -> None:
    assert [fact.prompt for fact in facts() if fact.is_told_by(fact.prompt)] == []


def test_nearly_every_prompt_takes_constraints() -> None:
    drawn = list(Constraints(path=PLAIN)(count=60, seed=0))
    asked = {text_of(row["query"]) for row in drawn}
    assert asked <= set(plain_prompts())
    assert len(asked) >= 54
    assert len({row["family"] for row in drawn}) >= 6


@pytest.mark.usefixtures("in_empty_folder")
def test_a_file_of_the_readers_own_goes_before_the_prompts_of_the_package() -> None:
    assert len(Jsonl(PLAIN).supply) == len(plain_prompts())
    Path(PLAIN).write_text('{"prompt": "Mine."}\n')
    assert len(Jsonl(PLAIN).supply) == 1


def test_the_comparison_finds_what_was_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longest = max(plain_prompts(), key=len)
    copied, other = tmp_path / "copied.jsonl", tmp_path / "other.jsonl"
    copied.write_text(json.dumps({"prompt": f"Read this. {longest} Answer."}) + "\n")
    other.write_text('{"prompt": "Nothing of the kind was ever asked before, nor after."}\n')
    assert compare([str(copied)]) == 1
    assert longest in capsys.readouterr().out
    assert compare([str(other)]) == 0
    for copied_of in (short_questions(), exact_tasks()):
        other.write_text(json.dumps({"prompt": copied_of[0]}) + "\n")
        assert compare([str(other)]) == 1


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
