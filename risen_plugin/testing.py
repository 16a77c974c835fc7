"""Checks for the authors of plugins: does an object hold to the contract of its kind?

The checks are plain functions that raise ``AssertionError`` with the broken promise, and need no
pytest. With pytest, ``pytest_plugins = ["risen_plugin.testing"]`` in a ``conftest.py`` brings the
fixture ``plugins``. Nothing here loads torch or trains a model.

PYTEST_DONT_REWRITE: tests import this module early, and no check is written with ``assert``.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import functools
import inspect
import itertools
import json
import math
import numbers
import pickle
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from risen_plugin.commands.audit.elsewhere import same_path
from risen_plugin.commands.audit.run import CHECKS, run_check, subject_of
from risen_plugin.contracts import Decision, Failed, PhaseRecord, Progress, Stateful
from risen_plugin.plugins import Plugins
from risen_plugin.progress import ADHERENCE, PROBE_LOSS, SECONDS

if TYPE_CHECKING:
    import pytest

TEXTS = (
    "yes",
    "",
    "   \n",
    "Two lines.\nThe second has 7 words, or nearly.",
    '{"city": "Oslo", "tags": ["a", "b"]}',
    "ПРИВЕТ, как дела? 你好世界。مرحبا 👩‍👩‍👧",
    "word " * 3000,
)
"""Answers that a model may give: short, empty, blank, structured, not Latin, very long."""

SAMPLES: Mapping[str, Mapping[str, list[Any]]] = {
    "plain": {
        "prompts": ["Say something."] * len(TEXTS),
        "completions": list(TEXTS),
    },
    "chat": {
        "prompts": [[{"role": "user", "content": "Say something."}] for _ in TEXTS],
        "completions": [[{"role": "assistant", "content": text}] for text in TEXTS],
    },
}
"""The same batch of answers in the two forms in which TRL passes them."""


class _Kind(enum.Enum):
    FAILED = "failed"


# Rewards


def check_reward(reward: Callable[..., Any], **columns: Any) -> None:
    """Run every check of ``REWARD_CHECKS``.

    :param columns: a value for each column that the reward needs, passed once per completion as
        TRL does: ``check_reward(exact, answer="yes")``.
    :raises AssertionError: with the broken promise.
    """
    for check in REWARD_CHECKS:
        check(reward, **columns)


def reward_gives_one_score_per_completion(reward: Callable[..., Any], **columns: Any) -> None:
    """There are as many scores as completions, each a finite number, None or :class:`Failed`."""
    for form, batch in SAMPLES.items():
        for score, text in zip(_scores(reward, batch, columns), TEXTS, strict=True):
            _require(
                score is None
                or score is _Kind.FAILED
                or (isinstance(score, numbers.Real) and math.isfinite(score)),
                f"{_name(reward)} scored {text[:20]!r} ({form}) with {score!r}; a score is a "
                "finite number, None to abstain, or Failed where it could not be had",
            )


def reward_repeats_itself(reward: Callable[..., Any], **columns: Any) -> None:
    """The same batch gets the same scores."""
    for batch in SAMPLES.values():
        first, second = _scores(reward, batch, columns), _scores(reward, batch, columns)
        _require(first == second, f"{_name(reward)} scored one batch {first}, then {second}")


def reward_reads_chat_and_plain_alike(reward: Callable[..., Any], **columns: Any) -> None:
    """An answer gets the same score as text and as a chat message; ``text_of`` reads both."""
    plain, chat = (_scores(reward, SAMPLES[form], columns) for form in ("plain", "chat"))
    _require(plain == chat, f"{_name(reward)} scored plain text {plain}, the same as chat {chat}")


def reward_leaves_the_batch_alone(reward: Callable[..., Any], **columns: Any) -> None:
    """The reward changes none of the passed lists, since the next reward gets the same ones."""
    for batch in SAMPLES.values():
        before = _call_arguments(batch, columns)
        passed = copy.deepcopy(before)
        _called(reward, passed)
        changed = [name for name in before if passed[name] != before[name]]
        _require(not changed, f"{_name(reward)} changed {', '.join(changed)} in the batch")


def reward_takes_columns_it_does_not_know(reward: Callable[..., Any], **columns: Any) -> None:
    """The reward accepts other columns of the rows, and the arguments that TRL adds."""
    from risen_plugin.rewards.adherence import TrainingState

    batch = SAMPLES["plain"]
    extras = {
        "a_column_of_another_reward": [1] * len(TEXTS),
        "completion_ids": [[1, 2, 3]] * len(TEXTS),
        "trainer_state": TrainingState(),
        "log_extra": lambda *_, **__: None,
        "log_metric": lambda *_, **__: None,
    }
    _called(reward, {**_call_arguments(batch, columns), **extras})


def reward_pickles(reward: Callable[..., Any], **columns: Any) -> None:
    """The reward can be pickled, and scores the same afterwards."""
    try:
        twin = pickle.loads(pickle.dumps(reward))
    except Exception as error:
        raise AssertionError(f"{_name(reward)} cannot be pickled: {error}") from error
    batch = SAMPLES["plain"]
    _require(
        _scores(twin, batch, columns) == _scores(reward, batch, columns),
        f"{_name(reward)} scores otherwise after pickling",
    )


REWARD_CHECKS: tuple[Callable[..., None], ...] = (
    reward_gives_one_score_per_completion,
    reward_repeats_itself,
    reward_reads_chat_and_plain_alike,
    reward_leaves_the_batch_alone,
    reward_takes_columns_it_does_not_know,
    reward_pickles,
)
"""One function per promise, for ``pytest.mark.parametrize("check", REWARD_CHECKS)``."""


def _call_arguments(batch: Mapping[str, list[Any]], columns: Mapping[str, Any]) -> dict[str, Any]:
    repeated = {
        name: [copy.deepcopy(value) for _ in batch["completions"]]
        for name, value in columns.items()
    }
    return {**copy.deepcopy(dict(batch)), **repeated}


def _called(reward: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    missing = [name for name in getattr(reward, "needs", ()) if name not in arguments]
    _require(
        not missing,
        f"{_name(reward)} needs the columns {', '.join(missing)}: give a value for each, "
        "as in check_reward(reward, answer='yes')",
    )
    try:
        result = reward(**arguments)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result
    except Exception as error:
        raise AssertionError(
            f"{_name(reward)} raised {type(error).__name__} when called with "
            f"{', '.join(arguments)}: {error}"
        ) from error


async def _awaited(result: Any) -> Any:
    return await result


def _scores(
    reward: Callable[..., Any], batch: Mapping[str, list[Any]], columns: Mapping[str, Any]
) -> list[Any]:
    scores = _called(reward, _call_arguments(batch, columns))
    _require(
        isinstance(scores, list) and len(scores) == len(batch["completions"]),
        f"{_name(reward)} returned {_counted(scores)} for {len(batch['completions'])} "
        "completions; it must return a list with one score each",
    )
    # Failed is NaN, and equal to nothing; two failures are the same outcome.
    return [_Kind.FAILED if isinstance(score, Failed) else score for score in scores]


def _counted(scores: object) -> str:
    if isinstance(scores, list):
        return f"{len(scores)} scores"
    return f"a {type(scores).__name__}"


# The audit of a reward


def _audit_check(name: str) -> Callable[..., None]:
    def check(reward: Callable[..., Any], **columns: Any) -> None:
        result = run_check(subject_of(reward, rows=[columns] if columns else ()), name)
        _require(result.verdict != "fail", f"{_name(reward)}, audit check '{name}': {result.seen}")

    check.__name__ = check.__qualname__ = f"audit_{name}"
    check.__doc__ = inspect.getdoc(getattr(CHECKS[name], "func", CHECKS[name]))
    return check


AUDIT_CHECKS: tuple[Callable[..., None], ...] = tuple(map(_audit_check, CHECKS))
"""The checks of ``risen audit``, each called as those of ``REWARD_CHECKS`` are.

A value for ``completion`` among the columns is an answer that the reward must accept. The check
``audit_process`` passes where a reward cannot be imported by another process.
"""


def parametrize_with_audit(
    rewards: Iterable[Any], *, allow: Collection[str] = ()
) -> pytest.MarkDecorator:
    """Run a test for each reward and each check of ``AUDIT_CHECKS``.

    ::

        @parametrize_with_audit([Vowels(0.5), (Exact(), {"answer": "yes"})])
        def test_the_reward_passes_its_audit(reward, check):
            check(reward)

    :param rewards: rewards, or pairs of a reward and its columns.
    :param allow: names of checks that are left out, as ``risen audit --allow`` takes them.
    :raises ValueError: if ``allow`` names no check.
    """
    import pytest

    unknown = sorted(set(allow) - set(CHECKS))
    if unknown:
        raise ValueError(f"no audit check is called {unknown[0]!r}; there are: {', '.join(CHECKS)}")
    cases = []
    for case in rewards:
        reward, columns = case if isinstance(case, tuple) else (case, {})
        for name, check in zip(CHECKS, AUDIT_CHECKS, strict=True):
            if name not in allow:
                bound = functools.partial(check, **columns)
                cases.append(pytest.param(reward, bound, id=f"{_name(reward)}-{name}"))
    return pytest.mark.parametrize(("reward", "check"), cases)


# Generators


def check_generator(
    generator: Callable[..., Any], *, count: int = 8, seed: int = 0, **context: Any
) -> None:
    """The generator makes rows that a run can use, and the same for the same arguments and state.

    :param context: context that the generator reads beside ``pass_rates``, which is always passed.
    :raises AssertionError: with the broken promise.
    """
    context = {"pass_rates": {}, "something_a_later_release_adds": 1, **context}
    passed = copy.deepcopy(context)
    state = _state(generator)
    rows = _rows(generator, count, seed, passed)
    _require(passed == context, f"{_name(generator)} changed the context that it was given")
    for row in rows:
        _check_row(generator, row)
    if isinstance(generator, Stateful):
        generator.load_state_dict(state)
    again = _rows(generator, count, seed, copy.deepcopy(context))
    _require(
        rows == again, f"{_name(generator)} made other rows from the same count, seed and state"
    )
    if isinstance(generator, Stateful):
        generator.load_state_dict(state)
        _require(_state(generator) == state, f"{_name(generator)} does not keep a loaded state")


def _state(generator: object) -> Any:
    if not isinstance(generator, Stateful):
        return None
    state = generator.state_dict()
    return json.loads(_jsonable(state, f"the state of {_name(generator)}"))


def _rows(generator: Any, count: int, seed: int, context: Mapping[str, Any]) -> list[Any]:
    try:
        made = generator(count=count, seed=seed, **context)
        rows = list(itertools.islice(made, count + 1))
    except Exception as error:
        raise AssertionError(
            f"{_name(generator)} raised {type(error).__name__} for count={count}, seed={seed}, "
            f"{', '.join(context)}: {error}"
        ) from error
    _require(len(rows) <= count, f"{_name(generator)} made more rows than the {count} asked for")
    _require(bool(rows), f"{_name(generator)} made no row at all")
    return rows


def _check_row(generator: object, row: Any) -> None:
    name = _name(generator)
    _require(isinstance(row, Mapping), f"{name} made a row that is no mapping: {row!r}")
    _require("prompt" in row, f"{name} made a row without 'prompt': it has {', '.join(row)}")
    prompt = row["prompt"]
    is_chat = (
        isinstance(prompt, Sequence)
        and not isinstance(prompt, str)
        and all(isinstance(m, Mapping) and {"role", "content"} <= set(m) for m in prompt)
    )
    _require(
        bool(prompt) and (isinstance(prompt, str) or is_chat),
        f"{name} made a prompt that is neither text nor chat messages: {prompt!r}",
    )
    missing = [column for column in getattr(generator, "columns", ()) if column not in row]
    _require(not missing, f"{name} promises the columns {', '.join(missing)}, but a row has none")
    _jsonable(dict(row), f"a row of {name}")


# Schedulers


def check_scheduler(scheduler: Callable[..., Any], *, max_steps: int = 60) -> None:
    """The scheduler decides validly at every step of several runs, by the progress alone.

    In some of these runs phases are kept, in some dropped; some have evaluations, one has buffers
    that fill, and one has a single step.

    :raises AssertionError: with the broken promise.
    """
    for run in (
        _Run(max_steps),
        _Run(max_steps, accepted=False),
        _Run(max_steps, evaluates=False),
        _Run(max_steps, buffers=True),
        _Run(1),
    ):
        for progress, decision in reversed(_run(scheduler, run)):
            again = _decided(scheduler, progress)
            _require(
                again == decision,
                f"{_name(scheduler)} is not a pure function of the progress: at step "
                f"{progress.step} it decided {decision}, then {again}",
            )


@dataclass(frozen=True)
class _Run:
    """An imaginary run: its length, whether phases are kept, and what the scheduler can see."""

    max_steps: int
    accepted: bool = True
    evaluates: bool = True
    buffers: bool = False


def _run(scheduler: Callable[..., Any], run: _Run) -> list[tuple[Progress, Decision]]:
    """The decision after each step of a run that follows the scheduler."""
    decisions = []
    past: list[PhaseRecord] = []
    began, rollouts, unsolved, seconds, reason = 0, 0, 0, 0.0, "the run began"
    for step in range(1, run.max_steps + 1):
        now = PhaseRecord("fine_tune", step - began, began, reason)
        evaluated = range(10, step + 1, 10) if run.evaluates else ()
        progress = Progress(
            step=step,
            max_steps=run.max_steps,
            phases=(*past, now),
            train_losses=tuple((s, 1.0 + 1.0 / s) for s in range(1, step + 1)),
            eval_metrics=tuple((s, {"eval_loss": 1.0 + 1.0 / s}) for s in evaluated),
            elapsed_s=0.5 * step + seconds,
            rollouts=rollouts,
            tokens=20 * rollouts,
            unsolved=unsolved,
            buffered=8 * unsolved,
        )
        decision = _decided(scheduler, progress)
        decisions.append((progress, decision))
        if decision.phase == "fine_tune":
            continue
        past += [now, _phase(decision, step, run, sum(p.kind == "risen" for p in past))]
        began, reason = step, f"the {decision.phase} phase ended"
        seconds += past[-1].metrics[SECONDS]
        if decision.phase == "risen":
            rollouts += 8 * decision.steps
            unsolved += 40 if run.buffers else 0
        else:
            unsolved = 0
    return decisions


def _phase(decision: Decision, step: int, run: _Run, done: int) -> PhaseRecord:
    """The record of an imaginary phase: each gains less than the one before."""
    if decision.phase == "burst":
        measured: dict[str, Any] = {SECONDS: 0.5 * decision.steps}
        return PhaseRecord("burst", decision.steps, step, decision.reason, None, measured)
    before = 1.0 - 0.5**done
    measured = {
        f"{ADHERENCE}_before": before,
        f"{ADHERENCE}_after": 1.0 - 0.5 ** (done + 1),
        f"{PROBE_LOSS}_before": 1.0,
        f"{PROBE_LOSS}_after": 1.01,
        "rollouts": 8 * decision.steps,
        "tokens": 160 * decision.steps,
        SECONDS: 2.0 * decision.steps,
    }
    return PhaseRecord("risen", decision.steps, step, decision.reason, run.accepted, measured)


def _decided(scheduler: Callable[..., Any], progress: Progress) -> Decision:
    name, step = _name(scheduler), progress.step
    before = copy.deepcopy(progress)
    try:
        decision: Any = scheduler(progress)
    except Exception as error:
        raise AssertionError(
            f"{name} raised {type(error).__name__} at step {step}: {error}"
        ) from error
    _require(progress == before, f"{name} changed the progress that it was given")
    _require(
        isinstance(decision, Decision),
        f"{name} returned a {type(decision).__name__} at step {step}, not a Decision",
    )
    _require(
        decision.phase in ("fine_tune", "risen", "burst"),
        f"{name} decided on the phase {decision.phase!r}; there are 'fine_tune', 'risen' and "
        "'burst'",
    )
    what = "burst" if decision.phase == "burst" else "RISEN phase"
    _require(
        decision.phase == "fine_tune" or (type(decision.steps) is int and decision.steps >= 1),
        f"{name} asked for a {what} of {decision.steps!r} steps at step {step}",
    )
    _require(
        decision.phase != "burst" or progress.buffered + progress.demonstrations > 0,
        f"{name} asked for a burst at step {step}, where the buffers are empty",
    )
    _require(
        isinstance(decision.reason, str) and bool(decision.reason.strip()),
        f"{name} gave no reason at step {step}",
    )
    _jsonable(dict(decision.parameters), f"the parameters that {name} decided on")
    return cast(Decision, decision)


# Exporters and rollouts

CONFIGURATIONS: tuple[Mapping[str, Any], ...] = (
    {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 288,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    },
    {"architectures": ["SomebodysForCausalLM"], "model_type": "somebodys"},
    {"architectures": None, "num_hidden_layers": None, "rope_parameters": {"rope_type": "new"}},
    {},
)
"""Contents of ``config.json``: of a common model, of one that nobody knows, and nearly nothing."""


def check_exporter(exporter: Any, *, precision: str = "fp32", target: str = "cpu") -> None:
    """The exporter says in one line what it cannot build, and can be called as a run calls it.

    Nothing is built: whether the graph is the model is what ``risen export`` measures each time.

    :raises AssertionError: with the broken promise.
    """
    _refuses_alike(exporter, target, precision)
    _refused(exporter, CONFIGURATIONS[0], "a-later-target", "a-later-precision")
    _takes_by_name(exporter, "model", "out", "target", "precision", "scratch", "show_log")


def check_rollout(rollout: Any) -> None:
    """The rollout says in one line what it cannot answer for, and can be called as a run calls it.

    Nothing is sampled: how far answers are from the model in training is measured in each phase.

    :raises AssertionError: with the broken promise.
    """
    _refuses_alike(rollout)
    _takes_by_name(rollout, "model", "tokenizer", "folder", "rows")


def _refuses_alike(plugin: Any, *more: str) -> None:
    for config in CONFIGURATIONS:
        first = _refused(plugin, config, *more)
        again = _refused(plugin, config, *more)
        _require(first == again, f"{_name(plugin)} refused one model {first!r}, then {again!r}")


def _takes_by_name(plugin: Any, *names: str) -> None:
    try:
        inspect.signature(plugin).bind(**dict.fromkeys(names), something_a_later_release_adds=1)
    except TypeError as error:
        raise AssertionError(
            f"{_name(plugin)} cannot be called with {', '.join(names)} by name and what a "
            f"later release adds (**context): {error}"
        ) from error


def _refused(plugin: Any, config: Mapping[str, Any], *more: str) -> str | None:
    name, passed = _name(plugin), copy.deepcopy(dict(config))
    loaded = {module for module in _HEAVY if module in sys.modules}
    try:
        reason: Any = plugin.refuses(passed, *more)
    except Exception as error:
        raise AssertionError(
            f"{name}.refuses raised {type(error).__name__} for {config}: {error}; it returns a line"
        ) from error
    _require(passed == config, f"{name}.refuses changed the configuration that it was given")
    new = [module for module in _HEAVY if module in sys.modules and module not in loaded]
    _require(not new, f"{name}.refuses loads {', '.join(new)}; it reads the configuration alone")
    _require(
        reason is None
        or (isinstance(reason, str) and bool(reason.strip()) and len(reason.splitlines()) == 1),
        f"{name}.refuses returned {reason!r}; it returns None, or the reason in one line",
    )
    return cast("str | None", reason)


# Modules

_HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "onnxruntime")


def check_light_import(module: str) -> None:
    """Importing ``module`` in a fresh interpreter loads none of the heavy libraries.

    :raises AssertionError: naming those that it loads, or with the error of the import.
    """
    code = (
        f"import importlib, sys; importlib.import_module({module!r}); "
        f"print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=same_path(),
    )
    _require(done.returncode == 0, f"importing {module} failed:\n{done.stderr}")
    _require(not done.stdout.split(), f"importing {module} loads {done.stdout.strip()}")


def _jsonable(value: object, what: str) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{what} cannot be written as JSON: {error}") from error


def _name(thing: object) -> str:
    return str(getattr(thing, "__name__", type(thing).__name__))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)


try:
    import pytest
except ImportError:  # the checks do without
    pass
else:

    @pytest.fixture
    def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
        """A fresh registry without any plugin, whatever the environment says."""
        for variable in ("DISABLED", "STRICT", "TRACE"):
            monkeypatch.delenv(f"RISEN_{variable}_PLUGINS", raising=False)
        return Plugins()
