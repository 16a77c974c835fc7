"""What an engine is asked, and what it gives back: frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from risen_plugin.errors import DataError

Finish = Literal["stop", "length", "cancelled"]
"""Why an answer ended: a token or a text that ends it, its longest length, or whoever asked."""
_MOST_LIKELIEST = 100


def _within(name: str, value: float, least: float, most: float) -> None:
    # NaN is within no bounds.
    if not least <= value <= most:
        raise DataError(f"{name} is {value}, and has to be between {least:g} and {most:g}")


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    The order is that of other engines: penalties and biases change the logits, ``temperature``
    divides them, then ``top_k``, ``top_p`` and ``min_p`` leave out what is unlikely.

    :param temperature: 0 takes the likeliest token.
    :param top_k: draw among the k likeliest tokens; 0 for all.
    :param top_p: draw among the likeliest tokens that hold this probability together.
    :param min_p: leave out tokens less likely than this share of the likeliest one.
    :param repetition_penalty: divides the logits of tokens that were in the prompt or the answer.
    :param frequency_penalty: subtracted for each time that a token is in the answer.
    :param presence_penalty: subtracted once from each token that is in the answer.
    :param logit_bias: added to the logits of single tokens.
    :param seed: the same seed draws the same answer, whatever else is answered beside it; None
        draws another each time.
    :param logprobs: give back the log-probability of the token drawn, and of so many of the
        likeliest; None gives back none.
    :param scaled_logprobs: log-probabilities of the distribution that was drawn from before
        anything was left out (logits changed and divided by the temperature), as policy gradients
        need them; else of the model's own.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    seed: int | None = None
    logprobs: int | None = None
    scaled_logprobs: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no setting.

        :raises DataError: with the setting's name and its bounds.
        """
        _within("temperature", self.temperature, 0, 100)
        _within("top_k", self.top_k, 0, 2**31)
        _within("top_p", self.top_p, 0, 1)
        _within("min_p", self.min_p, 0, 1)
        _within("repetition_penalty", self.repetition_penalty, 1e-6, 1e6)
        _within("frequency_penalty", self.frequency_penalty, -100, 100)
        _within("presence_penalty", self.presence_penalty, -100, 100)
        _within("logprobs", self.logprobs or 0, 0, _MOST_LIKELIEST)
        if self.top_p == 0:
            raise DataError("top_p cannot be 0: nothing would be left to draw; use temperature 0")
        if self.seed is not None:
            _within("seed", self.seed, -(2**63), 2**64)

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.temperature == 0


GREEDY = Sampling(temperature=0.0)
"""The likeliest token each time."""


@dataclass(frozen=True)
class Grammar:
    """What an answer has to match, for llguidance.

    :param kind: of the text: a JSON schema, a regular expression, or a grammar in Lark's syntax.
    :param text: the schema, expression or grammar.
    """

    kind: Literal["json_schema", "regex", "lark"]
    text: str


@dataclass(frozen=True)
class Request:
    """One prompt to be answered, once or several times.

    :param ids: tokens of the prompt.
    :param max_new_tokens: most tokens of an answer; None for the room that the context leaves, at
        most what the model itself says.
    :param n: answers; the prompt is read once for all of them.
    :param adapter: a name that the engine knows; None for the base model.
    :param stop: texts that end an answer and are not part of it.
    :param stop_ids: tokens that end an answer beside the model's own.
    :param ignore_eos: go on past the model's own end-of-text tokens.
    :param follow_settings: apply the model's own generation settings (such as
        ``bad_words_ids``) to the logits.
    :param text: decode the answers; else only tokens come back, and ``stop`` cannot be used.
    """

    ids: tuple[int, ...]
    max_new_tokens: int | None = None
    sampling: Sampling = GREEDY
    n: int = 1
    adapter: str | None = None
    stop: tuple[str, ...] = ()
    stop_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    follow_settings: bool = True
    grammar: Grammar | None = None
    text: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be answered by any engine.

        :raises DataError: with what is wrong.
        """
        if not self.ids:
            raise DataError("the prompt is empty")
        _within("n", self.n, 1, 2**20)
        if self.max_new_tokens is not None:
            _within("max_new_tokens", self.max_new_tokens, 1, 2**31)
        if any(not text for text in self.stop):
            raise DataError("a stop text cannot be empty")
        if self.stop and not self.text:
            raise DataError("stop texts need text=True")


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a token that was drawn.

    :param likeliest: pairs of token and log-probability, the likeliest first.
    """

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """What has come to one answer of a request since the piece before.

    :param request: the number that ``submit`` gave.
    :param index: which of the request's ``n`` answers.
    :param ids: new tokens; the token that ended the answer is the last of them.
    :param text: new text; what might become a stop text is held back until it is clear.
    :param logprobs: of the new tokens, where they were asked for.
    :param finish: None while more will come.
    """

    request: int
    index: int
    ids: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None


@dataclass(frozen=True)
class Completion:
    """One whole answer.

    :param ids: its tokens, with the one that ended it, if one did.
    :param text: without special tokens and stop texts.
    """

    ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...]
    finish: Finish
