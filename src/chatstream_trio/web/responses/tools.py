"""The tools of a body: which of them a model may call here, and how their names come and go.

Functions are the client's own, and so are those of a namespace (Codex sends its MCP servers and
agents as such). What OpenAI itself would run is not there: what clients send by default, and do
without, is passed over, and named like a field that is not known; what an answer would rest upon
(files, code, servers) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import field, frozen

from chatstream_trio.conversation import Tool, ToolChoice
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.request import check_text
from chatstream_trio.web.bodies.reading import Foreign, Unknown, Wire
from chatstream_trio.web.responses.foreign import TOOL_LABELS

MOST_TOOLS = 128
"""As many as OpenAI takes."""
NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PASSED_OVER = re.compile(
    r"(web_search(_preview)?(_\d{4}_\d{2}_\d{2})?|image_generation|tool_search)"
)
"""Types of tools that Codex, n8n and others offer by default."""


class Function(Wire, frozen=True):
    """A function in a namespace."""

    foreign = Foreign(labels=TOOL_LABELS, empty=True)
    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(Function, frozen=True):
    """A tool as it comes over the wire."""

    tools: list[Function] | None = None
    """Of a namespace."""

    def echo(self) -> dict[str, Any]:
        """How the reply repeats it."""
        named = {"type": self.type, "name": self.name, "description": self.description}
        if self.type == "namespace":
            return {**named, "tools": [_function_json(it) for it in self.tools or ()]}
        return _function_json(self)


def _function_json(it: Function) -> dict[str, Any]:
    return {
        "type": "function",
        "name": it.name,
        "description": it.description,
        "parameters": it.parameters,
        "strict": bool(it.strict),
    }


class AllowedTool(Wire, frozen=True, omit_defaults=True):
    """A tool that may be called, by its name."""

    foreign = Foreign(labels={"server_label": lambda value: True})
    type: str
    name: str | None = None


class ChoiceBody(Wire, frozen=True, omit_defaults=True):
    """``tool_choice``, where it is more than a word."""

    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[AllowedTool] | None = None


@frozen
class Toolbox:
    """The functions that a model is offered."""

    tools: tuple[Tool, ...] = ()
    _owners: Mapping[str, tuple[str | None, str]] = field(factory=dict)
    """Namespace and name of each, by the name under which it is offered."""

    def named(self, offered: str) -> tuple[str | None, str]:
        """Namespace and name of what a model calls."""
        return self._owners.get(offered, (None, offered))

    def offered(self, name: str, namespace: str | None) -> str:
        """Under which name a function is offered, or was."""
        wanted = (namespace, name)
        found = (offered for offered, owner in self._owners.items() if owner == wanted)
        return next(found, name)

    def choose(self, choice: str | ChoiceBody | None) -> tuple[tuple[Tool, ...], ToolChoice]:
        """Which of the functions a model may call, and whether it must.

        Raises:
            InvalidRequest: It names what is not there.
            UnsupportedField: It wants a tool that is no function.
        """
        match choice:
            case None:
                return self.tools, ToolChoice()
            case "auto" | "none":
                return self.tools, ToolChoice(choice)
            case "required":
                return self._must(self.tools), ToolChoice("required")
            case str():
                raise InvalidRequest(
                    "tool_choice must be none, auto, required or an object", param="tool_choice"
                )
            case ChoiceBody(type="function"):
                return self.tools, ToolChoice(
                    "required", _known(choice.name, self._names(), "tool_choice")
                )
            case ChoiceBody(type="allowed_tools"):
                return self._allow(choice)
        raise UnsupportedField(
            f"tools of the type {choice.type[:40]!r} are not supported here",
            param="tool_choice.type",
        )

    def _allow(self, choice: ChoiceBody) -> tuple[tuple[Tool, ...], ToolChoice]:
        if choice.mode not in ("auto", "required"):
            raise InvalidRequest("mode must be auto or required", param="tool_choice.mode")
        known = self._names()
        names = {
            _known(tool.name, known, f"tool_choice.tools[{index}]")
            for index, tool in enumerate(choice.tools or ())
            if tool.type == "function"
        }
        tools = tuple(tool for tool in self.tools if tool.name in names)
        if choice.mode == "required":
            return self._must(tools), ToolChoice("required")
        return tools, ToolChoice("auto" if tools else "none")

    def _must(self, tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
        if not tools:
            raise InvalidRequest(
                "a call is required, and there is no function to call", param="tool_choice"
            )
        return tools

    def _names(self) -> dict[str, str]:
        """By which names a choice may call them: their own, and those under which they are
        offered."""
        own = {name: offered for offered, (_, name) in self._owners.items()}
        return own | {offered: offered for offered in self._owners}


def _known(name: str | None, names: Mapping[str, str], at: str) -> str:
    if (found := names.get(name or "")) is None:
        raise InvalidRequest(f"there is no function {(name or '')[:64]!r}", param=f"{at}.name")
    return found


def open_toolbox(bodies: list[ToolBody], unknown: Unknown) -> tuple[Toolbox, list[ToolBody]]:
    """The functions among some tools, and the tools that count.

    Args:
        bodies: As they came.
        unknown: Told of those that are passed over.

    Raises:
        InvalidRequest: A name is missing or wrong, or there are too many.
        UnsupportedField: A tool is of a kind that cannot be done without.
    """
    tools: list[Tool] = []
    owners: dict[str, tuple[str | None, str]] = {}
    kept = []
    for at, body in enumerate(bodies):
        if _PASSED_OVER.fullmatch(body.type):
            unknown(f"tools[{at}].{body.type}")
            continue
        kept.append(body)
        for where, namespace, function in _functions(body, f"tools[{at}]"):
            tool, owner = _tool(function, namespace, where, owners.__contains__)
            tools.append(tool)
            owners[tool.name] = owner
            if len(tools) > MOST_TOOLS:
                raise InvalidRequest(f"there are more than {MOST_TOOLS} functions", param="tools")
    return Toolbox(tuple(tools), owners), kept


def _functions(body: ToolBody, at: str) -> Iterator[tuple[str, str | None, Function]]:
    if body.type == "function":
        yield at, None, body
    elif body.type == "namespace":
        namespace = _name(body, at)
        for index, function in enumerate(body.tools or ()):
            where = f"{at}.tools[{index}]"
            if function.type != "function":
                raise _not_run(function.type, where)
            yield where, namespace, function
    else:
        raise _not_run(body.type, at)


def _not_run(type: str, at: str) -> UnsupportedField:
    return UnsupportedField(
        f"tools of the type {type[:40]!r} are not supported here; functions are",
        param=f"{at}.type",
    )


def _tool(
    function: Function, namespace: str | None, at: str, taken: Callable[[str], bool]
) -> tuple[Tool, tuple[str | None, str]]:
    name = offered = _name(function, at)
    if namespace is not None and taken(name):
        offered = f"{namespace}__{name}"
    if taken(offered):
        raise InvalidRequest(f"there are two functions {offered!r}", param=f"{at}.name")
    if function.description is not None:
        check_text(function.description, f"{at}.description")
    tool = Tool(offered, function.description, function.parameters, bool(function.strict))
    return tool, (namespace, name)


def _name(function: Function, at: str) -> str:
    name = function.name
    if name is None or not NAME.fullmatch(name):
        raise InvalidRequest(
            "a name is 1 to 128 of A-Z, a-z, 0-9, '_', '-' and '.'", param=f"{at}.name"
        )
    return name
