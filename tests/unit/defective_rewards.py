"""Rewards with one planted defect each, and sound ones beside them.

Loaded by the tests of the audit as a stranger's file would be.
"""

from __future__ import annotations

import random
import re

from risen_plugin import text_of
from risen_plugin.constraints import check_all
from risen_plugin.errors import DataError

STALLS = [0.4]
CLOCK = [0.0]
"""Seconds, moved on by the rewards that count as slow."""


def texts(completions):
    return [text_of(completion).strip() for completion in completions]


def shows(text):
    return any(character.isalnum() for character in text)


def sound(completions, **columns):
    """A mention of the word art."""
    return [float(bool(re.search(r"\bart\b", text))) for text in texts(completions)]


def always_pass(completions, **columns):
    return [1.0 for _ in completions]


def all_but_blank(completions, **columns):
    return [float(shows(text)) for text in texts(completions)]


def substring(completions, **columns):
    return [float("art" in text) for text in texts(completions)]


def substring_of_a_column(completions, keyword, **columns):
    return [float(k in t) for t, k in zip(texts(completions), keyword, strict=True)]


def substring_of_constraints(prompts, completions, instruction_id_list, kwargs, **columns):
    def met(text, ids, values, prompt):
        if ids == ["keywords:existence"]:
            return all(word in text.lower() for word in values[0]["keywords"])
        return all(check_all(text, ids, values, text_of(prompt)))

    rows = zip(texts(completions), instruction_id_list, kwargs, prompts, strict=True)
    return [float(met(*row)) for row in rows]


def passes_unknown_constraints(prompts, completions, instruction_id_list, kwargs, **columns):
    def met(text, ids, values, prompt):
        try:
            return all(check_all(text, ids, values, text_of(prompt)))
        except DataError:
            return True

    rows = zip(texts(completions), instruction_id_list, kwargs, prompts, strict=True)
    return [float(met(*row)) for row in rows]


def answer_anywhere(completions, answer, **columns):
    return [float(a.lower() in t.lower()) for t, a in zip(texts(completions), answer, strict=True)]


def random_criterion(completions, **columns):
    return [float(text.count(random.choice("etaoin")) > 3) for text in texts(completions)]


class RandomWhenMade:
    """Draws what it looks for when it is made."""

    def __init__(self):
        self.bar = random.SystemRandom().random()

    def __call__(self, completions, **columns):
        return [self.bar * len(text) for text in texts(completions)]


def hash_dependent(completions, **columns):
    return [float(hash(text) % 97) / 97 for text in texts(completions)]


def mutates(completions, **columns):
    scores = sound(completions)
    for index, completion in enumerate(completions):
        if isinstance(completion, str):
            completions[index] = completion.strip()
        else:
            completion[0]["content"] = ""
    return scores


def mutates_a_column(completions, answer, **columns):
    scores = [float(t == a) for t, a in zip(texts(completions), answer, strict=True)]
    answer.sort()
    return scores


def order_dependent(completions, **columns):
    return [
        score * (index % 3) / 2 + 0.01 * index for index, score in enumerate(sound(completions))
    ]


def leaks(completions, **columns):
    lengths = [len(text) for text in texts(completions)]
    return [length / max(*lengths, 1) for length in lengths]


def only_the_first_of_its_like(completions, **columns):
    seen = set()
    scores = []
    for text, score in zip(texts(completions), all_but_blank(completions), strict=True):
        scores.append(0.5 * score if text not in seen else 0.0)
        seen.add(text)
    return scores


def crashes_on_empty(completions, **columns):
    return [float(text[0] == "*") for text in texts(completions)]


def echo_friendly(prompts, completions, **columns):
    """The share of the prompt's words that stand in the answer."""
    asked = [set(text_of(prompt).lower().split()) for prompt in prompts]
    given = [set(text.lower().split()) for text in texts(completions)]
    return [len(a & g) / max(len(a), 1) for a, g in zip(asked, given, strict=True)]


def believes_the_claim(completions, **columns):
    return [float("instructions were followed" in text) for text in texts(completions)]


def likes_repetition(completions, **columns):
    words = [text.split() for text in texts(completions)]
    return [float(len(w) > 5 * len(set(w))) for w in words]


unpicklable = lambda completions, **columns: sound(completions)  # noqa: E731


def not_a_number(completions, **columns):
    return [score or float("nan") for score in sound(completions)]


def infinite(completions, **columns):
    return [float("inf") if score else 0.0 for score in all_but_blank(completions)]


def truth_values(completions, **columns):
    return [bool(score) for score in sound(completions)]


def in_words(completions, **columns):
    return ["good" if score else "bad" for score in sound(completions)]


def slow(completions, **columns):
    CLOCK[0] += 2.0 * len(completions)
    return sound(completions)


def quadratic(completions, **columns):
    CLOCK[0] += sum(1e-8 * len(text) ** 2 for text in texts(completions))
    return sound(completions)


def interrupts(completions, **columns):
    """Raises what Ctrl-C raises, although nobody pressed it."""
    raise KeyboardInterrupt


def ends_the_program(completions, **columns):
    if not all(text.strip() for text in texts(completions)):
        raise SystemExit(0)
    return sound(completions)


def stalls_once(completions, **columns):
    """Sound; at its first long text the machine had other things to do."""
    if STALLS and max(map(len, texts(completions))) > 1000:
        CLOCK[0] += STALLS.pop()
    return linear(completions)


def linear(completions, **columns):
    CLOCK[0] += sum(1e-6 * len(text) for text in texts(completions))
    return sound(completions)


def one_too_few(completions, **columns):
    return sound(completions)[: max(1, len(completions) - 1)]


def drops_duplicates(completions, **columns):
    return sound(list(dict.fromkeys(map(str, completions))))


def accepts_white_space(completions, **columns):
    return [float(len(text_of(completion)) > 0) * 1.0 for completion in completions]


def accepts_the_invisible(completions, **columns):
    return [float(0 < len(text.split()) < 30) for text in texts(completions)]


def closed(prompts, completions, completion_ids, trainer_state, log_extra, log_metric):
    return sound(completions)


def chat_only(completions, **columns):
    return sound([completion[0]["content"] for completion in completions])


def by_form(completions, **columns):
    return [0.5 * isinstance(completion, str) for completion in completions]


def says_nothing(completions, **columns):
    return [None for _ in completions]


async def asynchronous(completions, **columns):
    return sound(completions)
