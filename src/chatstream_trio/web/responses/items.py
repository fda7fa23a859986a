"""The items of an input, made into the messages of a conversation.

What an assistant did in one go comes as several items: what it thought, what it said, which tools
it called. To a model that is one message. This module knows no body and no tools.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence

import msgspec
from attrs import define, evolve, field

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.conversation import Message, Role, TextPart, ToolCall
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.request import check_text
from chatstream_trio.web.bodies.reading import Foreign, Wire
from chatstream_trio.web.responses.foreign import ITEM_LABELS, PART_LABELS
from chatstream_trio.web.responses.tools import Toolbox

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "assistant": "assistant",
}
_TEXTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
_SEALED = "plain:"
"""What we call encrypted is not: it is what the client was told anyway, for those clients that send
back nothing else of it."""


def seal(reasoning: str) -> str:
    """Reasoning in the form in which a client keeps it without reading it."""
    return _SEALED + b64encode(reasoning.encode()).decode()


def _unseal(sealed: str) -> str:
    """The reasoning in what a client kept; nothing, if it is somebody else's."""
    if not sealed.startswith(_SEALED):
        return ""
    try:
        return b64decode(sealed.removeprefix(_SEALED), validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return ""


class Part(Wire, frozen=True):
    """A part of an item's content; those that are no text are refused."""

    foreign = Foreign(labels=PART_LABELS, empty=True)
    type: str
    text: str | None = None
    refusal: str | None = None

    def read(self, at: str) -> str:
        """Its text."""
        if self.type == "refusal":
            name, text = "refusal", self.refusal
        elif self.type in _TEXTS:
            name, text = "text", self.text
        else:
            raise UnsupportedField(
                f"parts of the type {self.type[:40]!r} are not supported here; text is",
                param=f"{at}.type",
            )
        if text is None:
            raise _missing(f"{at}.{name}")
        check_text(text, f"{at}.{name}")
        return text


class InputItem(Wire, frozen=True):
    """One of the items of ``input``: which of its fields count, its type says."""

    foreign = Foreign(labels=ITEM_LABELS, empty=True)
    type: str | None = None
    """A message, if there is none."""
    role: str | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    summary: list[Part] | None = None
    encrypted_content: str | None = None


@define
class Turns:
    """Messages as they are made of items, one after the other."""

    toolbox: Toolbox
    walk: Walk
    messages: list[Message] = field(factory=list)
    _open: bool = field(default=False, init=False)
    """Whether the last message is an assistant's to which more may belong."""

    def add(self, item: InputItem, at: str) -> None:
        """Take the next item.

        Args:
            item: What it is.
            at: Its path, for errors.

        Raises:
            InvalidRequest: Something is missing in it, or no text.
            UnsupportedField: It is of a kind that is not known here.
        """
        match item.type or ("message" if item.role is not None else "item_reference"):
            case "message":
                self._add_message(item, at)
            case "reasoning":
                self._add_reasoning(item, at)
            case "function_call":
                self._add_call(item, at)
            case "function_call_output":
                texts = self._texts(item.output, f"{at}.output")
                call = _text(item.call_id, f"{at}.call_id")
                self._open = False
                self.messages.append(Message("tool", texts, tool_call_id=call))
            case "item_reference":
                raise UnsupportedField(
                    "no answers are kept here that an item could refer to; send the item itself",
                    param=f"{at}.type" if item.type else f"{at}",
                )
            case other:
                raise UnsupportedField(
                    f"items of the type {other[:40]!r} are not supported here", param=f"{at}.type"
                )

    def _add_message(self, item: InputItem, at: str) -> None:
        role = _ROLES.get(_text(item.role, f"{at}.role"))
        if role is None:
            raise InvalidRequest(f"the role must be one of {', '.join(_ROLES)}", param=f"{at}.role")
        content = self._texts(item.content, f"{at}.content")
        if role != "assistant":
            self._open = False
            self.hear(role, content)
            return
        last = self._assistant()
        if last.content or last.tool_calls:
            last = self._another()
        self.messages[-1] = evolve(last, content=content)

    def hear(self, role: Role, content: Sequence[TextPart]) -> None:
        """Somebody else says something. What comes before all else is one message: most templates
        know one system message, at the beginning, and Codex sends three."""
        first = self.messages[0] if len(self.messages) == 1 else None
        if first is None or not {role, first.role} <= {"system", "developer"}:
            self.messages.append(Message(role, content))
            return
        both = role if role == first.role else "system"
        self.messages[0] = Message(both, (*first.content, TextPart("\n\n"), *content))

    def _add_reasoning(self, item: InputItem, at: str) -> None:
        content: str | Sequence[Part] = item.content or item.summary or ""
        where = f"{at}.content" if item.content else f"{at}.summary"
        texts = [part.text for part in self._texts(content, where)]
        thought = "\n".join(texts) or _unseal(item.encrypted_content or "")
        if not thought:
            return  # it is somebody else's, and cannot be read
        last = self._assistant()
        if last.content or last.tool_calls:
            last = self._another()
        said = thought if last.reasoning is None else f"{last.reasoning}\n{thought}"
        self.messages[-1] = evolve(last, reasoning=said)

    def _add_call(self, item: InputItem, at: str) -> None:
        arguments = _text(item.arguments, f"{at}.arguments") or "{}"
        if not _is_object(arguments):
            raise InvalidRequest(
                "the arguments of a call must be a JSON object", param=f"{at}.arguments"
            )
        name = self.toolbox.offered(_text(item.name, f"{at}.name"), item.namespace)
        call = ToolCall(_text(item.call_id, f"{at}.call_id"), name, arguments)
        last = self._assistant()
        self.messages[-1] = evolve(last, tool_calls=(*last.tool_calls, call))

    def _assistant(self) -> Message:
        """The assistant's message that is open, or a new one."""
        return self.messages[-1] if self._open else self._another()

    def _another(self) -> Message:
        self.messages.append(Message("assistant", ()))
        self._open = True
        return self.messages[-1]

    def _texts(self, content: str | Sequence[Part] | None, at: str) -> tuple[TextPart, ...]:
        if content is None:
            raise _missing(at)
        if isinstance(content, str):
            check_text(content, at)
            return (TextPart(content),)
        parts = self.walk(enumerate(content))
        return tuple(TextPart(part.read(f"{at}[{index}]")) for index, part in parts)


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def _text(value: str | None, at: str) -> str:
    if value is None:
        raise _missing(at)
    check_text(value, at)
    return value


def _missing(at: str) -> InvalidRequest:
    return InvalidRequest(f"{at}: missing required field", param=at)
