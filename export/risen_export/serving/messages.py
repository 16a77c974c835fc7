"""The messages and tools of a chat request, as a chat template takes them.

Templates differ in what they make of lists of content parts and of call arguments that are texts;
they get plain texts, and arguments as objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from risen_export.serving.fields import Fields
from risen_export.serving.formats import MOST_SCHEMA, check_schema_depth
from risen_export.serving.refusals import RefusedError

_ROLES = ("system", "developer", "user", "assistant", "tool")
_MOST_MESSAGES = 4096
_MOST_PARTS = 1024
_MOST_TOOLS = 128
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

Tool = Mapping[str, Any]
"""``{"type": "function", "function": {"name", "description", "parameters"}}``."""


def read_messages(fields: Fields) -> list[dict[str, Any]]:
    """The messages of a chat, ready for a template.

    :raises RefusedError: if there are none, or one of them cannot be read.
    """
    given = fields.listed("messages", _MOST_MESSAGES)
    if given is None:
        raise fields.refused("messages", "is missing")
    if not given:
        raise fields.refused("messages", "is empty; a chat has at least one message")
    return [_message(Fields(one, f"messages[{index}].")) for index, one in enumerate(given)]


def _message(fields: Fields) -> dict[str, Any]:
    role = fields.choice("role", _ROLES)
    if role is None:
        raise fields.refused("role", "is missing")
    message: dict[str, Any] = {"role": "system" if role == "developer" else role}
    content = _content(fields)
    calls = _calls(fields) if role == "assistant" else None
    if content is None and not calls:
        raise fields.refused("content", "is missing")
    message["content"] = content or ""
    if calls:
        message["tool_calls"] = calls
    name = fields.text("name", 256)
    if name is not None:
        message["name"] = name
    if role == "tool":
        message["tool_call_id"] = fields.text("tool_call_id", 256) or ""
    # Clients send back a message as they got it.
    fields.ignore(("refusal", "annotations", "audio", "function_call", "reasoning_content"))
    fields.only()
    return message


def _content(fields: Fields) -> str | None:
    given = fields.take("content")
    if given is None or isinstance(given, str):
        return given
    parts = fields.listed("content", _MOST_PARTS) or []
    texts = []
    for index, part in enumerate(parts):
        one = Fields(part, f"{fields.where}content[{index}].")
        kind = one.text("type")
        if kind not in ("text", "refusal"):
            raise one.refused("type", "has to be text: the model reads nothing else")
        text = one.text(kind)
        if text is None:
            raise one.refused(kind, "is missing")
        texts.append(text)
    return "".join(texts)


def _calls(fields: Fields) -> list[dict[str, Any]] | None:
    given = fields.listed("tool_calls", _MOST_TOOLS)
    calls = []
    for index, one in enumerate(given or ()):
        call = Fields(one, f"{fields.where}tool_calls[{index}].")
        function = call.fields("function")
        if function is None:
            raise call.refused("function", "is missing")
        name, arguments = function.text("name", 256), function.take("arguments")
        if name is None:
            raise function.refused("name", "is missing")
        calls.append(
            {
                "id": call.text("id", 256) or "",
                "type": "function",
                "function": {"name": name, "arguments": _arguments(arguments)},
            }
        )
    return calls or None


def _arguments(given: object) -> Any:
    """Arguments as an object where they are the text of one."""
    if not isinstance(given, str):
        return {} if given is None else given
    try:
        read = json.loads(given)
    except (ValueError, RecursionError):
        return given
    return read if isinstance(read, dict) else given


def read_tools(fields: Fields) -> list[Tool]:
    """The tools that a model may call.

    :raises RefusedError: if one has no name, or two have the same.
    """
    tools = []
    for index, one in enumerate(fields.listed("tools", _MOST_TOOLS) or ()):
        tools.append(_tool(Fields(one, f"tools[{index}].")))
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) < len(names):
        raise fields.refused("tools", "has two tools of one name")
    return tools


def _tool(fields: Fields) -> Tool:
    if fields.choice("type", ("function",)) is None:
        raise fields.refused("type", "is missing; it is function")
    function = fields.fields("function")
    fields.only()
    if function is None:
        raise fields.refused("function", "is missing")
    name = function.text("name")
    if name is None or _TOOL_NAME.fullmatch(name) is None:
        raise function.refused(
            "name", "has to be up to 64 letters, digits, '_', '-' and '.', such as look_up"
        )
    made: dict[str, Any] = {"name": name}
    description = function.text("description", MOST_SCHEMA)
    if description is not None:
        made["description"] = description
    parameters = function.take("parameters")
    if parameters is not None:
        if not isinstance(parameters, dict):
            raise function.refused("parameters", "has to be a JSON schema: an object")
        check_schema_depth(parameters, f"{function.where}parameters")
        made["parameters"] = parameters
    function.flag("strict")
    function.only()
    return {"type": "function", "function": made}


def read_choice(fields: Fields, tools: Sequence[Tool]) -> tuple[str, list[Tool]]:
    """How tools are to be used: ``none``, ``auto`` or ``required``; and which of them.

    :raises RefusedError: if a tool is asked for that is not given.
    """
    given = fields.take("tool_choice")
    fields.flag("parallel_tool_calls")
    if given is None:
        return ("auto" if tools else "none"), list(tools)
    if isinstance(given, str):
        choice = fields.choice("tool_choice", ("none", "auto", "required")) or "auto"
        if choice == "required" and not tools:
            raise fields.refused("tool_choice", "is required, and there are no tools")
        return (choice if tools else "none"), list(tools)
    wanted = Fields(given, f"{fields.where}tool_choice.")
    wanted.choice("type", ("function",))
    function = wanted.fields("function")
    wanted.only()
    name = None if function is None else function.text("name")
    chosen = [tool for tool in tools if tool["function"]["name"] == name]
    if not chosen:
        raise RefusedError(
            "tool_choice names no tool of this request", param="tool_choice.function.name"
        )
    return "required", chosen
