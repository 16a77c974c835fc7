"""The generator ``rewrite``: prompts that a model rewrote or invented, with constraints added.

The model is asked through ``endpoint`` or by the run, in the words of ``wording``. No answer is
taken on trust: each passes the validity filter, or the original prompt takes its place.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from risen_plugin.builtin.generators.adding import ADDED_COLUMNS, question_of, with_question
from risen_plugin.builtin.generators.constrain import Constraints, constraints_of, first_valid
from risen_plugin.builtin.generators.endpoint import Endpoint, NoAnswer
from risen_plugin.builtin.generators.wording import cleaned, fault_of_answer, to_invent, to_rewrite
from risen_plugin.contracts import Row
from risen_plugin.errors import ConfigError, PluginError
from risen_plugin.instructions.validity import FilterReport, Validity

_LONGEST = 4000  # characters of a prompt, where the options of constraints set no limit


@dataclass
class Rewrite:
    """Prompts rewritten or invented by a model, each with verifiable constraints added.

    Without ``base_url`` the model that is being trained is asked, through ``generate`` in the
    context. An answer that is no request, too long, near to an earlier query or in an evaluation
    file is dropped and counted in ``report()``, and so is a request that failed; the original
    prompt then takes its place. No instruction comes twice.

    :param constraints: the options of the generator ``constraints``: where the prompts come from,
        and which constraints are added.
    :param mode: ``rewrite`` asks for each prompt in other words and keeps its columns; ``invent``
        shows some prompts and asks for a new one, which has no other columns.
    :param share: the share of rows to ask the model for; the others keep their prompt.
    :param examples: prompts to show where one is to be invented.
    :param near: the overlap of word pairs, from 0 to 1, from which on a query is too near to one
        before.
    :param base_url: an OpenAI-compatible endpoint, such as ``http://localhost:8000/v1``.
    :param model: the name of the model there.
    :param api_key_env: the environment variable with the key; the key itself is never recorded.
    :param temperature: of the endpoint's sampling.
    :param max_tokens: most tokens of its answer.
    :param request_timeout_s: seconds that one request may take.
    :param retries: further requests after a failure that may pass.
    :param budget: the most requests in all; without it there is no limit.
    :param cache: a file for the endpoint's answers; with it, a run can be repeated exactly.
    :param parallel: requests at a time.
    """

    constraints: Mapping[str, Any] | Constraints
    mode: Literal["rewrite", "invent"] = "rewrite"
    share: float = 1.0
    examples: int = 3
    near: float = 0.7
    base_url: str | None = None
    model: str | None = None
    api_key_env: str = ""
    temperature: float = 1.0
    max_tokens: int = 512
    request_timeout_s: float = 60.0
    retries: int = 2
    budget: int | None = None
    cache: str | None = None
    parallel: int = 4
    endpoint: Endpoint | None = field(default=None, init=False, compare=False)
    _made: int = field(default=0, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.mode not in ("rewrite", "invent"):
            raise ConfigError(f"mode must be rewrite or invent, not {self.mode!r}")
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share must be from 0 to 1, not {self.share}")
        if self.examples < 1:
            raise ConfigError(f"examples must be at least 1, not {self.examples}")
        Validity(near=self.near)
        if (self.base_url is None) != (self.model is None):
            raise ConfigError("base_url and model belong together; give both, or neither")
        if self.base_url is not None and self.model is not None:
            self.endpoint = Endpoint(
                self.base_url,
                self.model,
                self.api_key_env,
                request_timeout_s=self.request_timeout_s,
                retries=self.retries,
                budget=self.budget,
                cache=self.cache,
                parallel=self.parallel,
            )
        constraints_of(self.constraints, "rewrite")

    def __call__(self, *, count: int, seed: int, **context: Any) -> Iterator[Row]:
        """``count`` rows.

        :raises ConfigError: if there is neither an endpoint nor ``generate`` in the context.
        :raises DataError: as ``constraints``.
        """
        if self.endpoint is None and not callable(context.get("generate")):
            raise ConfigError(
                "rewrite asks the model that is being trained, but this run offers no 'generate'; "
                "give base_url and model to ask an endpoint"
            )
        seed = context.get("run_seed", seed)
        rows = list(self.base.source(count=count, seed=seed, start=self._made))
        rows = self._replaced(rows, seed, context.get("generate"))
        make = functools.partial(
            self.base.made, choices=self.base.choices(context.get("reserved", ()))
        )
        for row in rows:
            what = f"rewrite {seed} {self._made}"
            made = first_valid(self.valid, self.base.source.supply, row, what, make)
            if made is None:
                return
            self._made += 1
            yield self._shown(made)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every row has beside ``prompt``, as far as the first rows show."""
        return ADDED_COLUMNS if self.mode == "invent" else self.base.columns

    def report(self) -> FilterReport:
        """Counts of dropped answers of the model, and of instructions made of them, by reason."""
        return self.valid.report

    @functools.cached_property
    def base(self) -> Constraints:
        """The generator ``constraints`` that prompts and constraints come from."""
        return constraints_of(self.constraints, "rewrite")

    @functools.cached_property
    def valid(self) -> Validity:
        """The filter of every answer and instruction, which remembers those that passed.

        :raises DataError: if an evaluation file cannot be read.
        """
        base = self.base
        return Validity(
            longest=base.longest or _LONGEST,
            against=base.against,
            run=base.overlap,
            near=self.near,
        )

    def _shown(self, row: Row) -> Row:
        if self.mode == "rewrite":
            return row
        return {name: row[name] for name in ("prompt", *ADDED_COLUMNS)}

    def _replaced(self, rows: Sequence[Row], seed: int, generate: Any) -> list[Row]:
        """``rows`` with the prompts that the model wrote, where these can be used."""
        asked: dict[int, str] = {}
        for index, row in enumerate(rows):
            rng = random.Random(f"ask {seed} {self._made + index}")
            query = question_of(row)
            if not self.valid.is_near(query):
                self.valid.remember_query(query)
            if rng.random() >= self.share:
                continue
            if row.get("instruction_id_list"):
                self.valid.report.drop("not asked: the row states constraints", query)
            else:
                asked[index] = self._question(rng, query)
        answers = self._answers(list(asked.values()), seed, rows, generate)
        replaced = list(rows)
        for index, answer in zip(asked, answers, strict=True):
            text = self._usable(answer, question_of(rows[index]))
            if text is not None:
                self.valid.remember_query(text)
                replaced[index] = self._with(rows[index], text)
        return replaced

    def _question(self, rng: random.Random, query: str) -> str:
        if self.mode == "rewrite":
            return to_rewrite(rng, query)
        supply = self.base.source.supply
        others = [question_of(supply[rng.randrange(len(supply))]) for _ in range(self.examples - 1)]
        return to_invent([query, *others])

    def _answers(
        self,
        questions: Sequence[str],
        seed: int,
        rows: Sequence[Row],
        generate: Callable[[list[Any]], Any] | None,
    ) -> list[str | NoAnswer]:
        chats = [[{"role": "user", "content": question}] for question in questions]
        if self.endpoint is not None:
            return self.endpoint.ask(
                [
                    {
                        "messages": chat,
                        "temperature": self.temperature,
                        "max_tokens": self.max_tokens,
                        "seed": seed + self._made + number,
                    }
                    for number, chat in enumerate(chats)
                ]
            )
        if not chats or generate is None:
            return []
        is_chat = self.base.chat or not isinstance(rows[0]["prompt"], str)
        texts = generate(list(chats) if is_chat else list(questions))
        if (
            not isinstance(texts, list)
            or len(texts) != len(chats)
            or not all(isinstance(text, str) for text in texts)
        ):
            raise PluginError(f"'generate' must return a list of {len(chats)} texts, one a prompt")
        return list(texts)

    def _usable(self, answer: str | NoAnswer, original: str) -> str | None:
        """The request in ``answer``; None, counted, if there is none that can be used."""
        if isinstance(answer, NoAnswer):
            self.valid.report.drop(f"no answer: {answer.reason}", original)
            return None
        text = cleaned(answer)
        fault = fault_of_answer(text) or self.valid.fault_of_query(text)
        if fault is None and self.valid.is_near(text):
            fault = "near-duplicate"
        if fault is not None:
            self.valid.report.drop(f"answer of the model: {fault}", answer)
            return None
        return text

    def _with(self, row: Row, text: str) -> Row:
        row = {name: value for name, value in row.items() if name != "query"}
        return with_question(row, text)

    def state_dict(self) -> dict[str, Any]:
        """The instructions made so far, and the requests spent, as JSON values."""
        spent = self.endpoint.spent if self.endpoint is not None else 0
        return {"made": self._made, "spent": spent, "valid": self.valid.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`."""
        self._made = state["made"]
        if self.endpoint is not None:
            self.endpoint.go_on(state["spent"])
        self.valid.load_state_dict(state["valid"])
