"""The contract of rewards, generators, schedulers, exporters, rollouts: plain data and Protocols.

Imports no other module of the package and nothing heavy, so that a plugin's tests take seconds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

PhaseKind: TypeAlias = Literal["fine_tune", "risen", "burst"]
Message: TypeAlias = Mapping[str, Any]
Completion: TypeAlias = str | Sequence[Message]
"""One answer as TRL passes it: the text, or the chat messages of the assistant."""

Prompt: TypeAlias = str | Sequence[Message]
"""One instruction as a model is asked it: text, or chat messages."""

Row: TypeAlias = Mapping[str, Any]
"""One instruction: ``prompt`` (text or chat messages) and the columns that its rewards need."""


def text_of(completion: Completion) -> str:
    """The text of a completion or prompt, whether it is plain text or chat messages.

    The contents of chat messages are joined by newlines; content parts that are not text are left
    out.

    >>> text_of([{"role": "assistant", "content": "yes"}])
    'yes'
    """
    if isinstance(completion, str):
        return completion
    return "\n".join(_content(message.get("content")) for message in completion)


def without_thinking(completion: Completion) -> Completion:
    r"""``completion`` without its thinking sections, and without the white space that they leave.

    A section stands between ``<think>`` and ``</think>`` (also ``thinking``, ``thought``,
    ``reasoning``, ``seed:think``, and in square brackets). One that is not closed reaches to the
    end; one whose beginning stands in the prompt begins with the answer.

    >>> without_thinking("<think>Which one?</think>\n\nThe Rhine.")
    'The Rhine.'
    """
    if isinstance(completion, str):
        return _thoughtless(completion)
    return [
        {**message, "content": _thoughtless(_content(message["content"]))}
        if message.get("content")
        else message
        for message in completion
    ]


def _thoughtless(text: str) -> str:
    marks = list(_THOUGHT_MARK.finditer(text))
    if not marks:
        return text
    kept, since, is_open = [], 0, _closes(marks[0])
    for mark in marks:
        if _closes(mark):
            since, is_open = mark.end(), False
        elif not is_open:
            kept.append(text[since : mark.start()])
            is_open = True
    return "".join([*kept, "" if is_open else text[since:]]).lstrip()


def _closes(mark: re.Match[str]) -> bool:
    return mark[0][1] == "/"


_THOUGHT_MARK = re.compile(
    r"</?(?:seed:)?(?:think(?:ing)?|thought|reasoning)>|\[/?think\]", re.IGNORECASE
)


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return ""


def is_blank(text: str) -> bool:
    """Whether ``text`` shows nothing: only white space and characters without a shape.

    ``str.strip`` leaves zero-width characters in, and an answer of those is no answer.

    >>> is_blank("\u200b \u2060"), is_blank("a")
    (True, False)
    """
    if text.isascii():
        return not text.strip()
    return all(
        c.isspace() or unicodedata.category(c) in _UNSEEN_CATEGORIES or c in _UNSEEN_LETTERS
        for c in text
    )


_UNSEEN_CATEGORIES = frozenset(("Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Me"))
_UNSEEN_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"  # Hangul fillers and the empty Braille cell


class Failed(float):
    """In place of a score: the reward failed to judge this completion, which is no abstention.

    Its value is NaN, which TRL takes for no score, so a reward that returns it works in a bare
    ``GRPOTrainer`` too.

    :param reason: why, in one line.
    """

    reason: str

    def __new__(cls, reason: str) -> Failed:
        made = super().__new__(cls, "nan")
        made.reason = reason
        return made

    def __reduce__(self) -> tuple[type[Failed], tuple[str]]:
        return (Failed, (self.reason,))

    def __repr__(self) -> str:
        return f"Failed({self.reason!r})"


@dataclass(frozen=True)
class PhaseRecord:
    """One phase of the run.

    :param kind: ``fine_tune``, ``risen`` or ``burst``.
    :param steps: optimizer steps taken in it (the outer run's for ``fine_tune``).
    :param at_step: the outer run's step when the phase began.
    :param reason: the scheduler's reason for it.
    :param accepted: whether the guard kept a RISEN phase or a burst; None for fine-tuning.
    :param metrics: the measurements of the phase, by name.
    """

    kind: PhaseKind
    steps: int
    at_step: int
    reason: str
    accepted: bool | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progress:
    """The state of a run, by which a scheduler decides.

    :param step: optimizer steps that the outer run has taken.
    :param max_steps: optimizer steps that the outer run will take in all.
    :param phase: the phase that the run is in now.
    :param phases: the phases so far, oldest first; the last one is the present phase.
    :param train_losses: (step, loss) as the outer run logged them.
    :param eval_metrics: (step, metrics) of the outer run's evaluations.
    :param elapsed_s: wall-clock seconds since the run began, resumed time included.
    :param rollouts: completions sampled so far.
    :param tokens: completion tokens sampled so far.
    :param unsolved: instructions that nobody has solved yet.
    :param buffered: verified answers that a burst could be fine-tuned on.
    :param demonstrations: answers that a person wrote, for a burst too.
    """

    step: int
    max_steps: int
    phase: PhaseKind = "fine_tune"
    phases: Sequence[PhaseRecord] = ()
    train_losses: Sequence[tuple[int, float]] = ()
    eval_metrics: Sequence[tuple[int, Mapping[str, float]]] = ()
    elapsed_s: float = 0.0
    rollouts: int = 0
    tokens: int = 0
    unsolved: int = 0
    buffered: int = 0
    demonstrations: int = 0


@dataclass(frozen=True)
class Decision:
    """The next phase that a scheduler asks for.

    :param phase: ``fine_tune`` to go on with the outer run, ``risen`` to start a RISEN phase now,
        ``burst`` to fine-tune on the buffers now.
    :param steps: optimizer steps of the RISEN phase or burst; unused for ``fine_tune``.
    :param parameters: fields for this phase alone: of TRL's ``GRPOConfig``, such as ``beta``; of a
        burst ``learning_rate``, ``batch_size`` and ``own_share``.
    :param reason: one line for the log and the record.
    """

    phase: PhaseKind
    steps: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@runtime_checkable
class Reward(Protocol):
    """Scores answers; called exactly as TRL calls a reward function.

    ``columns`` holds the other columns of the rows, one value per completion, and TRL's own
    extras (``completion_ids``, ``trainer_state``, ``log_extra``, ``log_metric``). One finite
    number per completion, or None to abstain, or :class:`Failed` where it could not judge. An
    optional attribute ``needs`` names the columns that it requires. May be ``async``.
    """

    def __call__(
        self, *, prompts: list[Any], completions: list[Any], **columns: Any
    ) -> list[float | None]: ...


@runtime_checkable
class Generator(Protocol):
    """Makes instructions.

    ``context`` holds at least ``pass_rates``: the measured share of passed answers per family.
    The same arguments and state give the same rows. An optional attribute ``columns`` names the
    columns of its rows beside ``prompt``. A generator that keeps state offers ``state_dict()``
    and ``load_state_dict(state)`` with JSON values. Fewer rows than ``count`` mean that there
    are no more.
    """

    def __call__(self, *, count: int, seed: int, **context: Any) -> Iterable[Row]: ...


@runtime_checkable
class Scheduler(Protocol):
    """Decides between fine-tuning and RISEN; a pure function of the progress.

    Asked once after each optimizer step of the outer run. After a RISEN phase or a burst at least
    one fine-tuning step follows, unless the run is at its end.
    """

    def __call__(self, progress: Progress) -> Decision: ...


@runtime_checkable
class Exporter(Protocol):
    """Compiles a merged model to an ONNX graph.

    ``refuses`` says in one line why it cannot build such a model, or None. It reads ``config``,
    the contents of the model's ``config.json``, alone and loads nothing, so that a model which
    nobody can build is refused before its weights are read. The message stands behind the
    exporter's name: ``exporter 'tiny' (risen-tiny 0.1): it builds 2 layers at most, not 30``.

    The call reads the folder ``model`` (``config.json``, fp32 ``safetensors``, tokenizer) and
    writes ``model.onnx`` and ``model.onnx.data`` into the folder ``out``, which exists. ``target``
    is ``cpu`` or ``cuda``, ``precision`` a name that ``risen export --precision`` takes.
    ``context`` holds at least ``scratch`` (a folder on the same disk that all graphs of one export
    share, and that is gone after it) and ``show_log`` (whether the libraries' own messages are
    wanted), and may grow.

    The graph has the inputs ``input_ids`` and ``attention_mask`` (int64), may have
    ``position_ids``, and has ``past_key_values.N.key`` and ``.value`` for each layer N; its
    outputs are ``logits`` (B, T, V) and ``present.N.key`` and ``.value``. Rows, tokens and past
    may have any length, 0 past tokens included. Where it also writes a ``genai_config.json``
    whose ``past_present_share_buffer`` is true, past and present are one buffer and prompts are
    padded on the right; else present is past and the new tokens, and prompts are padded on the
    left.
    """

    def refuses(self, config: Mapping[str, Any], target: str, precision: str) -> str | None: ...

    def __call__(
        self, *, model: str, out: str, target: str, precision: str, **context: Any
    ) -> None: ...


@dataclass(frozen=True)
class Drawn:
    """An answer that was sampled.

    :param ids: its tokens, at least one; with the one that ended it, if one did.
    :param logprobs: of each token, its log-probability in the distribution that it was drawn from.
    """

    ids: Sequence[int]
    logprobs: Sequence[float]


@runtime_checkable
class Sampler(Protocol):
    """Samples answers of a model in training; made by a :class:`Rollout` for one phase.

    ``context`` is the most tokens of a prompt with its answer.

    ``follow`` is told the adapter that is trained, whenever it has changed: for each linear module
    of the base by its name, A (rank, inputs) and B (outputs, rank) as fp32 arrays of numpy, the
    scale in B; nothing for the base itself.

    ``sample`` answers each prompt (token ids) as many times as its number says, with at most
    ``max_new_tokens``, up to the first of ``ends``. The tokens are drawn from the whole
    distribution at ``temperature``, or are the likeliest ones where it is 0. The same seed draws
    the same answers.

    ``close`` lets go of the memory.
    """

    @property
    def context(self) -> int: ...

    def follow(self, factors: Mapping[str, tuple[Any, Any]]) -> None: ...

    def sample(
        self,
        prompts: Sequence[tuple[Sequence[int], int]],
        *,
        max_new_tokens: int,
        temperature: float,
        ends: Iterable[int],
        seed: int,
    ) -> list[list[Drawn]]: ...

    def close(self) -> None: ...


@runtime_checkable
class Rollout(Protocol):
    """A way to sample the answers of a phase outside of torch.

    ``refuses`` says in one line why it cannot answer for such a model, or None. It reads
    ``config``, the contents of the model's ``config.json``, alone and loads nothing.

    The call makes a sampler of a base model in memory, which it leaves as it is: ``model`` of
    transformers, or PEFT's around one, whose adapters it leaves out, and ``tokenizer``. ``folder``
    is for its files, which it may find again at a later phase, and ``rows`` the answers that are
    wanted at once. ``context`` may grow.
    """

    def refuses(self, config: Mapping[str, Any]) -> str | None: ...

    def __call__(
        self, *, model: Any, tokenizer: Any, folder: str, rows: int, **context: Any
    ) -> Sampler: ...


@runtime_checkable
class Stateful(Protocol):
    """A plugin object that keeps state between calls, saved in each checkpoint as JSON."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
