"""The description of the server's paths, for tools: OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from risen_plugin import __version__

_TEXT = {"type": "string"}
_FLAG = {"type": "boolean"}
_OBJECT = {"type": "object"}
_TEXTS = {"type": "array", "items": _TEXT}


def _integer(low: int, high: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": low, "maximum": high}


def _number(low: float, high: float) -> dict[str, Any]:
    return {"type": "number", "minimum": low, "maximum": high}


def _optional(properties: dict[str, Any]) -> dict[str, Any]:
    return {name: {"anyOf": [one, {"type": "null"}]} for name, one in properties.items()}


_SETTINGS: dict[str, Any] = {
    "n": _integer(1, 128),
    "temperature": _number(0, 100),
    "top_p": _number(0, 1),
    "top_k": _integer(-1, 2**31 - 1),
    "min_p": _number(0, 1),
    "repetition_penalty": _number(0.01, 100),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "logit_bias": {"type": "object", "additionalProperties": _number(-100, 100)},
    "seed": {"type": "integer"},
    "stop": {"anyOf": [_TEXT, {**_TEXTS, "maxItems": 16}]},
    "stop_token_ids": {"type": "array", "items": _integer(0, 2**31 - 1)},
    "ignore_eos": _FLAG,
    "stream": _FLAG,
    "stream_options": {"type": "object", "properties": {"include_usage": _FLAG}},
    "response_format": {
        "type": "object",
        "properties": {
            "type": {"enum": ["text", "json_object", "json_schema"]},
            "json_schema": {
                "type": "object",
                "properties": {"name": _TEXT, "strict": _FLAG, "schema": _OBJECT},
            },
        },
        "required": ["type"],
    },
    "structured_outputs": {
        "type": "object",
        "properties": {"json": _OBJECT, "regex": _TEXT, "choice": _TEXTS, "grammar": _TEXT},
    },
    "return_token_ids": _FLAG,
    "risen": {
        "type": "object",
        "properties": {
            "best_of": _integer(1, 128),
            "rewards": _TEXTS,
            "columns": _OBJECT,
            "instruction_id_list": _TEXTS,
            "kwargs": {"type": "array"},
        },
    },
    "user": _TEXT,
}
_MESSAGE = {
    "type": "object",
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
        "content": {
            "anyOf": [
                _TEXT,
                {
                    "type": "array",
                    "items": {"type": "object", "properties": {"type": _TEXT, "text": _TEXT}},
                },
            ]
        },
        "tool_call_id": _TEXT,
    },
    "required": ["role", "content"],
}
_TOOL = {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {"name": _TEXT, "description": _TEXT, "parameters": _OBJECT},
            "required": ["name"],
        },
    },
    "required": ["type", "function"],
}
_TOKENS = {"type": "array", "items": _integer(0, 2**31 - 1), "minItems": 1}
_PROMPT = {
    "anyOf": [
        {**_TEXT, "minLength": 1},
        {**_TEXTS, "minItems": 1},
        _TOKENS,
        {"type": "array", "items": _TOKENS, "minItems": 1},
    ]
}


def _bodies(models: Sequence[str], context: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The bodies of requests for chats and for texts."""
    model = {"type": "string", "enum": list(models)}
    longest = _integer(1, context - 1)
    chat = {
        "logprobs": _FLAG,
        "top_logprobs": _integer(0, 20),
        "max_tokens": longest,
        "max_completion_tokens": longest,
        "tools": {"type": "array", "items": _TOOL},
        "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required"]}, _OBJECT]},
        "parallel_tool_calls": _FLAG,
    }
    text = {"logprobs": _integer(0, 20), "echo": _FLAG, "max_tokens": longest}
    messages = {"type": "array", "items": _MESSAGE, "minItems": 1}
    return (
        _body({"model": model, "messages": messages}, {**_SETTINGS, **chat}),
        _body({"model": model, "prompt": _PROMPT}, {**_SETTINGS, **text}),
    )


def _body(needed: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    properties = {**needed, **_optional(more)}
    return {**_strict(properties, list(needed)), "additionalProperties": False}


_ERRORS = {
    "400": "The request cannot be answered as it is.",
    "401": "The API key is missing or wrong.",
    "403": "This server does not allow it.",
    "404": "There is no such model.",
    "408": "The body did not come in time.",
    "413": "The body is too large.",
    "415": "The body is not said to be JSON.",
    "429": "Too many requests; Retry-After says when to come again.",
    "503": "The engine has failed, or the server is stopping or paused.",
    "504": "The request took too long.",
}


def _operation(meaning: str, body: Any = None, **more: Any) -> dict[str, Any]:
    error = {"$ref": "#/components/schemas/Error"}
    responses = {
        code: {"description": text, "content": {"application/json": {"schema": error}}}
        for code, text in _ERRORS.items()
    }
    operation: dict[str, Any] = {
        "summary": meaning,
        "responses": {"200": {"description": "As asked."}, **responses},
        **more,
    }
    if body is not None:
        content = {"application/json": {"schema": body}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _strict(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def document(models: Sequence[str], context: int) -> dict[str, Any]:
    """The OpenAPI document of a server.

    :param models: the names that may be asked for.
    :param context: most tokens of a prompt with its answer.
    """
    chat, text = _bodies(models, context)
    name = {"name": "name", "in": "path", "required": True, "schema": _TEXT}
    mode = {"name": "mode", "in": "query", "schema": {"enum": ["abort", "wait", "keep"]}}
    load = _strict(
        {"lora_name": _TEXT, "lora_path": _TEXT, "load_inplace": _FLAG}, ["lora_name", "lora_path"]
    )
    unload = _strict({"lora_name": _TEXT}, ["lora_name"])
    open_: dict[str, Any] = {"security": []}
    return {
        "openapi": "3.1.0",
        "info": {"title": "risen serve", "version": __version__},
        "security": [{"key": []}],
        "paths": {
            "/": {"get": _operation("A page to try the models on.", **open_)},
            "/health": {"get": _operation("Whether the engine answers.", **open_)},
            "/ready": {"get": _operation("Whether requests are taken.", **open_)},
            "/metrics": {"get": _operation("Metrics for Prometheus.")},
            "/v1/models": {"get": _operation("The bundle and its adapters.")},
            "/v1/models/{name}": {"get": _operation("One model.", parameters=[name])},
            "/v1/chat/completions": {"post": _operation("The next message of a chat.", chat)},
            "/v1/completions": {"post": _operation("How texts go on.", text)},
            "/v1/load_lora_adapter": {"post": _operation("Load an adapter.", load)},
            "/v1/unload_lora_adapter": {"post": _operation("Forget an adapter.", unload)},
            "/pause": {"post": _operation("Stop writing answers.", parameters=[mode])},
            "/server_info": {"get": _operation("What clients of vLLM look for.")},
            "/resume": {"post": _operation("Go on writing answers.")},
        },
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Error": _strict(
                    {
                        "error": _strict(
                            {
                                "message": _TEXT,
                                "type": _TEXT,
                                "param": {"type": ["string", "null"]},
                                "code": {"type": ["string", "null"]},
                            },
                            ["message", "type"],
                        )
                    },
                    ["error"],
                )
            },
        },
    }
