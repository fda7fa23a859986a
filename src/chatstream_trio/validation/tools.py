"""What tools may be offered, how they may be chosen, and what else a template may be given."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chatstream_trio.conversation import Tool, ToolChoice
from chatstream_trio.errors import InvalidRequest
from chatstream_trio.validation.values import Budget, check_text

MOST_TOOLS = 128
"""As many as OpenAI takes."""
MOST_DESCRIBED = 2**15
"""Values in the schemas of all tools. A dozen tools of an agent have about a thousand."""
MOST_CHARACTERS = 2**20
"""In the descriptions and schemas of all tools, about."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_SCHEMAS = ("items", "additionalProperties", "contains", "propertyNames", "not", "if", "then")
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")

_RESERVED = (
    *("self", "conversation", "messages", "tools", "documents", "chat_template", "tokenize"),
    *("add_generation_prompt", "continue_final_message", "sanitize_control_tokens", "padding"),
    *("truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"),
    *("tokenizer_kwargs", "raise_exception", "strftime_now", "additional_special_tokens"),
)
"""Variables of templates, and what renders them, that are no client's to set; and those of which
the name ends like that of a control token."""
_MOST_OPTIONS = 2**12


def check_tools(tools: Sequence[Tool]) -> None:
    """Refuse tools that no model can be offered.

    Raises:
        InvalidRequest: ``param`` names the place.
    """
    if len(tools) > MOST_TOOLS:
        raise InvalidRequest(f"there are more than {MOST_TOOLS} tools", param="tools")
    budget = Budget(MOST_DESCRIBED, "the schemas of tools")
    names: set[str] = set()
    size = 0
    for index, tool in enumerate(tools):
        at = f"tools[{index}].function"
        if not _NAME.fullmatch(tool.name):
            raise InvalidRequest(
                "a name is 1 to 128 of A-Z, a-z, 0-9, '_', '-' and '.'", param=f"{at}.name"
            )
        if tool.name in names:
            raise InvalidRequest(f"there are two tools {tool.name!r}", param=f"{at}.name")
        names.add(tool.name)
        if tool.description is not None:
            check_text(tool.description, f"{at}.description")
        if tool.parameters is not None:
            _check_parameters(tool.parameters, f"{at}.parameters", budget)
        size += tool.size
        if size > MOST_CHARACTERS:
            raise InvalidRequest(
                f"tools have more than {MOST_CHARACTERS} characters", param="tools"
            )


def _check_parameters(schema: Mapping[str, Any], at: str, budget: Budget) -> None:
    if not isinstance(schema, Mapping):
        raise InvalidRequest("the parameters of a tool are a JSON schema", param=at)
    budget.check(schema, at)
    _check_schema(schema, at)
    types = schema.get("type", "object")
    if "object" not in (types if isinstance(types, list) else [types]):
        raise InvalidRequest("the parameters of a tool are a schema of an object", param=at)


def _check_schema(schema: Any, at: str) -> None:
    """Refuse what no draft of JSON schema has; it is no deeper than a value may be."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise InvalidRequest("a schema is an object, true or false", param=at)
    if "type" in schema:
        _check_type(schema["type"], f"{at}.type")
    _check_names(schema.get("required", []), f"{at}.required")
    if not isinstance(schema.get("enum", []), list):
        raise InvalidRequest("enum is a list", param=f"{at}.enum")
    for held, where in _schemas_in(schema, at):
        _check_schema(held, where)


def _schemas_in(schema: Mapping[str, Any], at: str) -> Iterator[tuple[Any, str]]:
    for key in _NAMED:
        named = schema.get(key, {})
        if not isinstance(named, Mapping):
            raise InvalidRequest(f"{key} is an object of schemas", param=f"{at}.{key}")
        yield from ((held, f"{at}.{key}.{name[:64]}") for name, held in named.items())
    for key in _LISTS:
        listed = schema.get(key, [])
        if not isinstance(listed, list):
            raise InvalidRequest(f"{key} is a list of schemas", param=f"{at}.{key}")
        yield from ((held, f"{at}.{key}[{place}]") for place, held in enumerate(listed))
    for key in _SCHEMAS:
        held = schema.get(key, True)
        several = held if key == "items" and isinstance(held, list) else [held]
        yield from ((one, f"{at}.{key}") for one in several)


def _check_names(names: Any, at: str) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidRequest("required is a list of names", param=at)


def _check_type(types: Any, at: str) -> None:
    for one in types if isinstance(types, list) else [types]:
        if one not in _TYPES:
            raise InvalidRequest(f"a type is one of {', '.join(_TYPES)}", param=at)


def check_choice(choice: ToolChoice, tools: Sequence[Tool]) -> None:
    """Refuse to demand a call of what is not there.

    Raises:
        InvalidRequest: ``tool_choice`` names no tool, or demands a call without any.
    """
    if choice.name is not None and choice.name not in {tool.name for tool in tools}:
        raise InvalidRequest(f"there is no tool {choice.name[:128]!r}", param="tool_choice")
    if choice.mode == "required" and not tools:
        raise InvalidRequest("a call is required, and there is no tool", param="tool_choice")


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse variables that are no client's to set.

    Raises:
        InvalidRequest: ``param`` names it.
    """
    for name in options:
        if name in _RESERVED or name.endswith(("_token", "_tokens")):
            raise InvalidRequest(
                f"{name[:64]!r} cannot be set for a template", param="chat_template_kwargs"
            )
    Budget(_MOST_OPTIONS, "chat_template_kwargs").check(options, "chat_template_kwargs")
