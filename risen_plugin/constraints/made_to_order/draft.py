"""A plain text built to order: words, sentences, paragraphs and parts, as many as are wanted.

A :class:`Draft` collects the requirements of a text; ``construct`` says which constraint sets which
of them. The words are common ones and mean nothing together.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from risen_plugin.constraints.text import count_sentences, count_words, ends_with

_LETTERS = re.compile(r"[^\W\d_]+")
_PAIR = re.compile(r"(\S+)(\s+)(\S+)")
_MOST = 10**9
_ROUNDS = 12  # of measuring and filling up


@dataclass
class Draft:
    """The requirements of a text.

    :param vocabulary: the words to fill up with.
    :param units: words and phrases to use somewhere in its sentences.
    :param fixed_words: by sentence from 1, the number and the text of a word in it.
    :param enough: more words are added until the text passes all of these.
    """

    vocabulary: list[str]
    unique: bool = False
    units: list[str] = field(default_factory=list)
    loud_words: int = 0
    placeholders: int = 0
    highlights: int = 0
    mark: str = "."
    case: Callable[[str], str] = str

    paragraphs: int = 1
    divider: str = "\n\n"
    paragraph_starts: dict[int, str] = field(default_factory=dict)
    sentences: int = 1
    words_each: int | None = None
    sentence_start: str = ""
    sentence_end: str = ""
    fixed_words: dict[int, tuple[int, str]] = field(default_factory=dict)
    joint: str = " "

    least_words: int = 0
    most_words: int = _MOST
    least_sentences: int = 0
    least_letters: int = 0
    enough: list[Callable[[str], bool]] = field(default_factory=list)

    lead: str = ""
    title: bool = False
    title_last: bool = False
    bullets: int = 0
    splitter: str = ""
    sections: int = 0
    postscript: str = ""
    option: str = ""
    start: str = ""
    end: str = ""
    end_word: str = ""
    same_ends: bool = False
    wrap: str = ""
    quoted: bool = False
    as_json: bool = False

    def write(self, rng: random.Random) -> str:
        """A text; whether it is right is for the caller to check."""
        words, sentences = 0, max(self.sentences, self.paragraphs, *self.fixed_words, 1)
        text = ""
        for _ in range(_ROUNDS):
            text = _Writer(self, rng, words, sentences).text()
            more_sentences = self.least_sentences - count_sentences(text)
            more_words = self.least_words - count_words(text)
            more_letters = self.least_letters - sum(map(str.isalpha, text))
            if more_sentences > 0:
                sentences += more_sentences
            elif more_words > 0:
                words += more_words
            elif more_letters > 0:
                words += 1 + more_letters // 8
            elif not all(passes(text) for passes in self.enough):
                words += 1 + words // 2
            else:
                break
        return text


class _Writer:
    """One text of a draft, with so many sentences and more words to fill up with."""

    def __init__(self, draft: Draft, rng: random.Random, words: int, sentences: int) -> None:
        self.draft = draft
        self.rng = rng
        self.unused = rng.sample(draft.vocabulary, len(draft.vocabulary))
        self.more_words = words
        self.count = sentences
        self.same = draft.start or draft.paragraph_starts.get(0) or draft.end_word
        if draft.same_ends and not self.same:
            first = draft.fixed_words.get(1)
            self.same = first[1] if first and first[0] == 1 else self.word()

    def word(self) -> str:
        """The next word to fill up with; none twice where no word may be repeated."""
        if self.draft.unique and self.unused:
            return self.unused.pop()
        return self.rng.choice(self.draft.vocabulary or ["word"])

    def text(self) -> str:
        """All of it."""
        draft = self.draft
        below = [*self.listed(), *self.title_lines(draft.title_last)]
        if below and (draft.end or draft.end_word or draft.sentence_end):
            below.append(self.last_line())
        lines = [*self.title_lines(not draft.title_last), self.body(), *below]
        if draft.postscript:
            end = f" {draft.end}" if draft.end else ""
            lines.append(self.cased(f"{draft.postscript} {self.word()}{draft.mark}{end}"))
        text = "\n".join(lines)
        if draft.same_ends and not ends_with(text, self.same):
            text = f"{text.rstrip(' .!?')} {self.cased(self.same)}"
        elif draft.same_ends:
            text = text.rstrip(" .!?")
        if draft.lead:
            text = f"{self.cased(draft.lead)}\n{text}"
        return self.wrapped(text)

    def title_lines(self, here: bool) -> list[str]:
        if not self.draft.title or not here or self.draft.wrap == "<<":  # where any pair is one
            return []
        return [self.cased(f"<<{self.word()}>>")]

    def body(self) -> str:
        """The sentences in their paragraphs."""
        draft = self.draft
        sentences = self.sentences()
        below = draft.bullets or draft.sections or draft.postscript
        ends_here = not (below or self.title_lines(draft.title_last))
        if draft.end_word and not draft.words_each and ends_here:
            first = draft.sentence_start or self.word()
            sentences.append(self.closed(f"{first} {draft.end_word}"))
        if draft.option:
            sentences[-1] = draft.option
        if draft.end and ends_here:
            sentences.append(self.cased(draft.end))
        parts: list[list[str]] = [[] for _ in range(draft.paragraphs)]
        for number, sentence in enumerate(sentences):
            parts[self.paragraph_of(number)].append(sentence)
        return draft.divider.join(draft.joint.join(part) for part in parts)

    def paragraph_of(self, sentence: int) -> int:
        """The paragraph of a sentence, by number; all are equally long, or nearly so."""
        return min(sentence * self.draft.paragraphs // self.count, self.draft.paragraphs - 1)

    def sentences(self) -> list[str]:
        draft, rng = self.draft, self.rng
        units = list(draft.units)
        units += [f"[{self.word()}]" for _ in range(draft.placeholders)]
        units += [f"*{self.word()}*" for _ in range(draft.highlights)]
        units += [self.word().upper() for _ in range(draft.loud_words)]
        units += [self.word() for _ in range(self.more_words)]
        heads = [self.head(number) for number in range(self.count)]
        bodies: list[list[str]] = [[] for _ in heads]
        for unit in sorted(units, key=lambda unit: -unit.count(" ")):
            self.body_for(unit, heads, bodies).append(unit)
        made = []
        for number, (head, body) in enumerate(zip(heads, bodies, strict=True)):
            if not head and not body:
                body.append(self.word())
            rng.shuffle(body)
            last = draft.words_each is not None and number == self.count - 1
            end = draft.sentence_end or (draft.end_word if last else "")
            tail = [end] if end else []
            while draft.words_each and self.length([*head, *body, *tail]) < draft.words_each:
                body.append(self.word())
            words = self.length([*head, *body, *tail])
            if draft.wrap == "<<" and words % 2 != (number == 0):
                body.append(self.word())
            made.append(self.closed(" ".join([*head, *body, *tail])))
        return made

    def head(self, number: int) -> list[str]:
        """The first words of a sentence, where they are fixed."""
        draft = self.draft
        paragraph = self.paragraph_of(number)
        begins = number == 0 or paragraph != self.paragraph_of(number - 1)
        head = []
        if begins and paragraph in draft.paragraph_starts:
            head = [draft.paragraph_starts[paragraph]]
        elif number == 0 and (draft.start or draft.same_ends):
            head = [draft.start or self.same]
        elif draft.sentence_start:
            head = [draft.sentence_start]
        if number + 1 in draft.fixed_words:
            position, word = draft.fixed_words[number + 1]
            while len(head) < position - 1:
                head.append(self.word())
            if len(head) < position:
                head.append(word)
        return head

    def body_for(self, unit: str, heads: list[list[str]], bodies: list[list[str]]) -> list[str]:
        """A sentence at random, among those with room where their length is fixed."""
        each = self.draft.words_each
        if not each:
            return self.rng.choice(bodies)
        room = [
            body
            for head, body in zip(heads, bodies, strict=True)
            if self.length([*head, *body, unit, self.draft.sentence_end]) <= each
        ]
        return self.rng.choice(room or bodies)

    @staticmethod
    def length(units: list[str]) -> int:
        return sum(len(unit.split()) for unit in units)

    def closed(self, sentence: str) -> str:
        """With a capital letter in front and the mark behind."""
        return f"{self.cased(sentence[:1].upper() + sentence[1:])}{self.draft.mark}"

    def cased(self, text: str) -> str:
        return self.draft.case(text)

    def listed(self) -> list[str]:
        draft = self.draft
        lines = [f"* {self.cased(self.word())}" for _ in range(draft.bullets)]
        for number in range(1, draft.sections + 1):
            lines += [f"{draft.splitter} {number}", self.cased(self.word())]
        return lines

    def last_line(self) -> str:
        """The line that has to come last, once more below a list."""
        draft = self.draft
        if draft.end:
            return self.cased(draft.end)
        return self.closed(f"{self.word()} {draft.end_word or draft.sentence_end}")

    def wrapped(self, text: str) -> str:
        draft = self.draft
        if draft.wrap == "[":
            text = re.sub(r"\S+", lambda word: f"[{word[0]}]", text)
        if draft.wrap == "<<":
            text = _PAIR.sub(lambda pair: f"<<{pair[1]}{pair[2]}{pair[3]}>>", text)
        if draft.as_json:
            return json.dumps({self.cased(self.word()): text}, ensure_ascii=False)
        return f'"{text}"' if draft.quoted else text


def capitalised(text: str) -> str:
    """Every word with a capital letter in front."""
    return _LETTERS.sub(lambda word: word[0][:1].upper() + word[0][1:], text)
