"""Hold an answer to a JSON schema, a regular expression or a grammar, through llguidance."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from risen_export.engine.endless import is_endless
from risen_export.engine.requests import Grammar
from risen_plugin.errors import DataError, ExportError, one_line

_LONGEST = 256 * 1024  # characters of a grammar
_KEPT = 32  # compiled grammars
_DEEPEST = 64  # levels of a schema


class Matcher:
    """Where one answer stands in its grammar."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        import llguidance.numpy as bits

        self._matcher = matcher
        self._mask = bits.allocate_token_bitmask(1, vocabulary)

    def forbid(self, logits: npt.NDArray[np.float32]) -> None:
        """Make what cannot come next impossible, in place; logits (V,)."""
        import llguidance.numpy as bits

        bits.fill_next_token_bitmask(self._matcher, self._mask, 0)
        bits.apply_token_bitmask_inplace(logits[None], self._mask)

    def take(self, token: int) -> bool:
        """Go on by a token; whether the grammar ends the answer here."""
        self._matcher.consume_token(token)
        return bool(self._matcher.is_stopped())


class Grammars:
    """Grammars over the vocabulary of a bundle.

    :param folder: of the variant, with its ``tokenizer.json``.
    :param eos: a token that ends an answer.
    """

    def __init__(self, folder: Path, vocabulary: int, eos: int) -> None:
        self._folder = folder
        self._vocabulary = vocabulary
        self._eos = eos
        self._tokenizer: Any = None
        self._compiled: OrderedDict[Grammar, Any] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, grammar: Grammar) -> Matcher:
        """A matcher at the beginning of an answer.

        :raises DataError: if the grammar cannot be read.
        :raises ExportError: if llguidance is missing.
        """
        return Matcher(self.prepare(grammar).deep_copy(), self._vocabulary)

    def prepare(self, grammar: Grammar) -> Any:
        """Compile a grammar, or find it among those that were asked for last; from any thread.

        :raises DataError: if the grammar cannot be read.
        :raises ExportError: if llguidance is missing.
        """
        with self._lock:
            if grammar in self._compiled:
                self._compiled.move_to_end(grammar)
                return self._compiled[grammar]
        # Some take seconds, in which nobody else has to wait for the lock.
        made = self._compile(grammar)
        with self._lock:
            self._compiled[grammar] = made
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return made

    def _compile(self, grammar: Grammar) -> Any:
        llguidance = _llguidance()
        if self._tokenizer is None:
            text = (self._folder / "tokenizer.json").read_text(encoding="utf-8")
            self._tokenizer = llguidance.LLTokenizer(
                text, n_vocab=self._vocabulary, eos_token=self._eos
            )
        _check(grammar)
        make = {
            "json_schema": llguidance.LLMatcher.grammar_from_json_schema,
            "regex": llguidance.LLMatcher.grammar_from_regex,
            "lark": llguidance.LLMatcher.grammar_from_lark,
        }[grammar.kind]
        try:
            matcher = llguidance.LLMatcher(self._tokenizer, make(grammar.text), log_level=0)
        except (ValueError, TypeError) as error:
            raise _refused(grammar, str(error)) from error
        problem = matcher.get_error()
        if problem:
            raise _refused(grammar, problem)
        if self._fails_at_once(matcher):
            raise _refused(grammar, "no answer to it ends: its rules ask for themselves again")
        return matcher

    def _fails_at_once(self, matcher: Any) -> bool:
        """Whether llguidance fails at an answer's first token, as it does at rules without end.

        It reads such a grammar without an error, and finds out when it looks for what may come.
        A grammar without end in which every token is followed by another one does not fail: its
        answers go on to their last token, and finish by length.
        """
        import llguidance.numpy as bits

        trial = matcher.deep_copy()
        bits.fill_next_token_bitmask(trial, bits.allocate_token_bitmask(1, self._vocabulary), 0)
        return bool(trial.is_error())


def _check(grammar: Grammar) -> None:
    if len(grammar.text) > _LONGEST:
        raise DataError(
            f"the {grammar.kind} has {len(grammar.text)} characters, at most {_LONGEST}"
        )
    if grammar.kind != "json_schema":
        return
    try:
        content = json.loads(grammar.text)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise DataError(f"the json_schema is not JSON: {one_line(error)}") from error
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            break
    else:
        raise _too_deep()
    if is_endless(content):
        raise _refused(grammar, "each answer to it would have to contain another one, without end")


def _refused(grammar: Grammar, problem: str) -> DataError:
    return DataError(f"the {grammar.kind} cannot be followed: {' '.join(problem.split())}")


def _too_deep() -> DataError:
    return DataError(f"the json_schema is nested deeper than {_DEEPEST} levels")


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise ExportError(
            "answers that follow a grammar need llguidance, which is not installed; "
            "pip install llguidance"
        ) from error
    return llguidance
