"""What a request for answers asks: from a JSON object to frozen data, without a model.

The fields are those of the OpenAI API, and of vLLM where that one has more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from risen_export.engine.requests import Grammar, Sampling
from risen_export.serving.fields import Fields
from risen_export.serving.formats import of_tools, read_format
from risen_export.serving.messages import Tool, read_choice, read_messages, read_tools
from risen_export.serving.refusals import RefusedError
from risen_plugin.errors import DataError

MOST_ANSWERS = 128
"""Answers of one request: its prompts times ``n``, or times ``best_of``."""
_MOST_PROMPTS = 1024
_MOST_STOPS = 16
_MOST_LIKELIEST = 20
_MOST_TOKENS = 2**31 - 1
_TOKEN = 2**31 - 1
# They change nothing in what is answered.
_IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "request_id",
    "priority",
)


@dataclass(frozen=True)
class Verifying:
    """Answers are judged, and the best are given.

    :param best_of: answers that are written; the ``n`` best of them are given.
    :param rewards: names of the rewards that judge.
    :param columns: what the rewards need to know of the instruction, such as
        ``instruction_id_list`` and ``kwargs``.
    """

    best_of: int
    rewards: tuple[str, ...]
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """What chats and texts have in common.

    :param model: the name of the bundle or of an adapter.
    :param n: answers to a prompt that are given back.
    """

    model: str
    sampling: Sampling
    n: int
    max_new_tokens: int | None
    stop: tuple[str, ...]
    stop_ids: frozenset[int]
    ignore_eos: bool
    grammar: Grammar | None
    stream: bool
    include_usage: bool
    return_token_ids: bool
    verifying: Verifying | None

    @property
    def candidates(self) -> int:
        """Answers to a prompt that are written."""
        return self.n if self.verifying is None else max(self.n, self.verifying.best_of)


@dataclass(frozen=True)
class ChatAsked:
    """A request for the next message of a chat.

    :param tools: those that the model is told of.
    :param calls: whether calls of them are read out of the answer.
    :param must_call: whether the answer is a call and nothing else.
    """

    settings: Settings
    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Tool, ...]
    calls: bool
    must_call: bool


@dataclass(frozen=True)
class TextAsked:
    """A request for the continuation of texts.

    :param prompts: texts, or tokens.
    :param echo: whether an answer begins with its prompt.
    """

    settings: Settings
    prompts: tuple[str | tuple[int, ...], ...]
    echo: bool


def read_chat(data: Mapping[str, Any]) -> ChatAsked:
    """A request to ``/v1/chat/completions``.

    :raises RefusedError: for what cannot be asked, with the field's name.
    """
    fields = Fields(data)
    messages = read_messages(fields)
    tools = read_tools(fields)
    choice, chosen = read_choice(fields, tools)
    likeliest = fields.integer("top_logprobs", 0, _MOST_LIKELIEST)
    wants = fields.flag("logprobs")
    if likeliest and not wants:
        raise fields.refused("top_logprobs", "needs logprobs: true")
    longest = fields.integer("max_completion_tokens", 1, _MOST_TOKENS)
    modalities = fields.texts("modalities", 4)
    if modalities is not None and modalities != ["text"]:
        raise fields.refused("modalities", 'has to be ["text"]: the model writes nothing else')
    fields.ignore(("reasoning_effort", "verbosity"))
    settings = _settings(fields, (likeliest or 0) if wants else None, longest)
    if choice == "required":
        if settings.grammar is not None:
            raise fields.refused("response_format", "and a required tool exclude each other")
        settings = _with_grammar(settings, of_tools(chosen))
    return ChatAsked(
        settings,
        tuple(messages),
        () if choice == "none" else tuple(tools),
        calls=choice != "none",
        must_call=choice == "required",
    )


def read_text(data: Mapping[str, Any]) -> TextAsked:
    """A request to ``/v1/completions``.

    :raises RefusedError: for what cannot be asked, with the field's name.
    """
    fields = Fields(data)
    prompts = _prompts(fields)
    logprobs = fields.integer("logprobs", 0, _MOST_LIKELIEST)
    echo = fields.flag("echo")
    if echo and logprobs is not None:
        raise fields.refused("echo", "gives no logprobs of the prompt; leave one of them out")
    if fields.text("suffix"):
        raise fields.refused("suffix", "is not supported: the model only writes on")
    best_of = fields.integer("best_of", 1, MOST_ANSWERS)
    settings = _settings(fields, logprobs, None)
    if best_of not in (None, settings.n):
        raise fields.refused("best_of", 'is judged by rewards here: "risen": {"best_of": 4}')
    if len(prompts) * settings.candidates > MOST_ANSWERS:
        raise RefusedError(
            f"{len(prompts)} prompts of {settings.candidates} answers each are asked; "
            f"{MOST_ANSWERS} answers are allowed in one request",
            param="prompt",
        )
    return TextAsked(settings, prompts, echo)


def _prompts(fields: Fields) -> tuple[str | tuple[int, ...], ...]:
    given = fields.take("prompt")
    if given is None:
        raise fields.refused("prompt", "is missing")
    if isinstance(given, str):
        prompts: list[Any] = [given]
    elif isinstance(given, list) and given and all(_is_token(one) for one in given):
        prompts = [tuple(given)]
    elif isinstance(given, list) and given:
        prompts = [tuple(one) if isinstance(one, list) else one for one in given]
    else:
        raise fields.refused("prompt", "has to be a text, tokens, or a list of them")
    if len(prompts) > _MOST_PROMPTS:
        raise fields.refused("prompt", f"has {len(prompts)} members; {_MOST_PROMPTS} are allowed")
    for one in prompts:
        if not isinstance(one, str) and not (
            isinstance(one, tuple) and one and all(map(_is_token, one))
        ):
            raise fields.refused("prompt", "has to be a text, tokens, or a list of them")
        if not one:
            raise fields.refused("prompt", "is empty")
    return tuple(prompts)


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _TOKEN


def _settings(fields: Fields, logprobs: int | None, longest: int | None) -> Settings:
    model = fields.text("model", 512)
    if model is None:
        raise fields.refused("model", "is missing; /v1/models lists those that are here")
    n = fields.integer("n", 1, MOST_ANSWERS)
    limit = fields.integer("max_tokens", 1, _MOST_TOKENS)
    stream = fields.flag("stream")
    options = fields.fields("stream_options")
    if options is not None and not stream:
        raise fields.refused("stream_options", "needs stream: true")
    include_usage = options is not None and options.flag("include_usage")
    if options is not None:
        options.ignore(("include_obfuscation", "continuous_usage_stats"))
        options.only()
    settings = Settings(
        model=model,
        sampling=_sampling(fields, logprobs),
        n=1 if n is None else n,
        max_new_tokens=limit if longest is None else longest,
        stop=_stops(fields),
        stop_ids=frozenset(_tokens(fields, "stop_token_ids")),
        ignore_eos=fields.flag("ignore_eos"),
        grammar=read_format(fields),
        stream=stream,
        include_usage=include_usage,
        return_token_ids=fields.flag("return_token_ids"),
        verifying=_verifying(fields),
    )
    if settings.verifying is not None and settings.verifying.best_of < settings.n:
        raise RefusedError("best_of is less than n", param="risen.best_of")
    fields.ignore(_IGNORED)
    fields.only()
    return settings


def _with_grammar(settings: Settings, grammar: Grammar) -> Settings:
    from dataclasses import replace

    return replace(settings, grammar=grammar)


def _sampling(fields: Fields, logprobs: int | None) -> Sampling:
    top_k = fields.integer("top_k", -1, 2**31 - 1)
    try:
        return Sampling(
            temperature=fields.number("temperature", 0, 100, 1.0),
            top_k=max(0, top_k or 0),
            top_p=fields.number("top_p", 0, 1, 1.0),
            min_p=fields.number("min_p", 0, 1, 0.0),
            repetition_penalty=fields.number("repetition_penalty", 0.01, 100, 1.0),
            frequency_penalty=fields.number("frequency_penalty", -2, 2, 0.0),
            presence_penalty=fields.number("presence_penalty", -2, 2, 0.0),
            logit_bias=_biases(fields),
            seed=fields.integer("seed", -(2**63), 2**63 - 1),
            logprobs=logprobs,
        )
    except DataError as error:
        raise RefusedError(str(error)) from None


def _biases(fields: Fields) -> dict[int, float]:
    given = fields.fields("logit_bias")
    biases: dict[int, float] = {}
    for name in [] if given is None else fields.take("logit_bias"):
        assert given is not None
        if not name.isascii() or not name.isdecimal() or len(name) > 10:
            raise given.refused(name[:40], "is no token: the names are token ids")
        biases[int(name)] = given.number(name, -100, 100, 0.0)
    return biases


def _stops(fields: Fields) -> tuple[str, ...]:
    given = fields.take("stop")
    stops = [given] if isinstance(given, str) else fields.texts("stop", _MOST_STOPS) or []
    if any(not one for one in stops):
        raise fields.refused("stop", "holds an empty text")
    return tuple(stops)


def _tokens(fields: Fields, name: str) -> list[int]:
    given = fields.listed(name, 1024) or []
    if not all(_is_token(one) for one in given):
        raise fields.refused(name, "has to be a list of token ids")
    return given


def _verifying(fields: Fields) -> Verifying | None:
    given = fields.fields("risen")
    if given is None:
        return None
    best_of = given.integer("best_of", 1, MOST_ANSWERS)
    rewards = given.texts("rewards", 16)
    columns = given.fields("columns")
    more = {name: given.take(name) for name in ("instruction_id_list", "kwargs")}
    given.only()
    named = dict(given.take("columns") or {}) if columns is not None else {}
    named |= {name: value for name, value in more.items() if value is not None}
    for name in ("prompt", "completion", "prompts", "completions"):
        if name in named:
            raise RefusedError(
                f"risen.columns.{name} is given by the request", param="risen.columns"
            )
    if not rewards:
        rewards = ["constraints"]
    if len(set(rewards)) < len(rewards):
        raise given.refused("rewards", "names one twice")
    return Verifying(best_of or 1, tuple(rewards), named)
