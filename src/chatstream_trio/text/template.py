"""A model's chat template, and what it was found to do with a conversation.

Templates leave things out without a word: a role that they do not know, a system message that does
not come first, content of another form, tools. So a template is tried before it is believed, with
words that can be found again in what it makes of them. This module knows no tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from attrs import field, frozen

from chatstream_trio.aside.pauses import PausingList, with_pauses
from chatstream_trio.errors import ChatStreamError, InvalidRequest, ModelNotLoaded, one_line
from chatstream_trio.text.forms import Form, Said, Spoken, formed, forms_of
from chatstream_trio.text.trial import NOWHERE, WITH_A_CALL, Shape, is_garbled

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For base models without a template of their own."""

_FEW, _SHORT = 64, 1000
"""Messages of a conversation whose trial is remembered, and characters of its options."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""What templates call it."""
_NINE = re.compile(r"[A-Za-z0-9]{9}")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@frozen
class ChatTemplate:
    """The template of a transformers tokenizer.

    Args:
        tokenizer: Its ``chat_template`` is used, or :data:`PLAIN_TEMPLATE`.

    Raises:
        ModelNotLoaded: It is broken: it cannot say even what one user says.
    """

    tokenizer: Any
    takes_parts: bool = field(default=False, init=False)
    """Whether it wants content as a list of parts."""
    as_system: bool = field(default=False, init=False)
    """Whether a developer's message has to go in as the system's."""
    takes_text: bool = field(default=False, init=False)
    """Whether it wants the arguments of calls as text."""
    short_ids: bool = field(default=False, init=False)
    """Whether it takes no ids of calls but those of nine letters and digits."""
    reasoning: str = field(default=_REASONING[0], init=False)
    """What it calls what an assistant said to itself."""
    _trial: Callable[[Shape, Form], int | None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._find("takes_parts", self._find_form())
        self._find("_trial", lru_cache(maxsize=256)(self._first_left_out))
        developer, system = (
            self._keeps(Shape.of_roles(role, "user")) for role in ("developer", "system")
        )
        self._find("as_system", system and not developer)
        self._find_ways_of_calls()
        self._find_reasoning()

    def _find(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def source(self) -> str:
        """What it is written as, all of it; empty for :data:`PLAIN_TEMPLATE`."""
        template = self.tokenizer.chat_template or ""
        return template if isinstance(template, str) else "\n".join(template.values())

    def render(self, spoken: Spoken) -> str:
        """The prompt, ready for the model's answer, in the first form that leaves nothing out.

        Raises:
            InvalidRequest: The template refuses this conversation, or would leave out some of it:
                ``param`` names the first message that it would.
        """
        shape, forms = Shape.of(spoken), forms_of(spoken)
        few = len(shape.turns) <= _FEW and len(shape.options) <= _SHORT
        failure: ChatStreamError | None = None
        for form in forms:
            try:
                lost = (self._trial if few else self._first_left_out)(shape, form)
            except Exception as error:
                failure = failure or _refused(error)
                if len(forms) > 1:
                    continue
                lost = None  # it refuses the conversation itself, and will say so
            if lost is not None:
                failure = failure or _left_out(shape, lost)
                continue
            try:
                return self._render(formed(spoken, form))
            except Exception as error:  # whatever a template may do with what it is given
                # Some refuse system messages, or two messages of one role in a row.
                failure = _refused(error)
        assert failure is not None, "there is a form at least"
        raise failure

    def _find_form(self) -> bool:
        failure: Exception | None = None
        for parts in (False, True):
            self._find("takes_parts", parts)
            try:
                if self._first_left_out(Shape.of_roles("user"), Form.NATIVE) is None:
                    return parts
            except Exception as error:
                failure = failure or error
        why = "it leaves out what a user says" if failure is None else one_line(failure)
        raise ModelNotLoaded(f"the model's chat template cannot be used: {why}")

    def _find_ways_of_calls(self) -> None:
        """As it is, if it takes calls in no way at all."""
        best = None
        for ways in ((False, False), (True, False), (False, True), (True, True)):
            self._find("takes_text", ways[0])
            self._find("short_ids", ways[1])
            try:
                text = self._render(WITH_A_CALL.to_spoken(long_ids=True))
            except Exception:
                continue
            if WITH_A_CALL.first_left_out(text) is None:
                best = best or ways
                if not is_garbled(text):
                    best = ways
                    break
        self._find("takes_text", bool(best and best[0]))
        self._find("short_ids", bool(best and best[1]))

    def _find_reasoning(self) -> None:
        for shape, name in ((s, n) for s in (WITH_A_CALL, _ANSWERED) for n in _REASONING):
            self._find("reasoning", name)
            spoken = shape.to_spoken()
            thought = {**spoken.messages[1], _REASONING[0]: "thoughthere"}
            try:
                text = self._render(Spoken([spoken.messages[0], thought, *spoken.messages[2:]]))
            except Exception:
                continue
            if "thoughthere" in text:
                return
        self._find("reasoning", _REASONING[0])

    def _keeps(self, shape: Shape) -> bool:
        try:
            return self._first_left_out(shape, Form.NATIVE) is None
        except Exception:
            return False

    def _first_left_out(self, shape: Shape, form: Form) -> int | None:
        return shape.first_left_out(self._render(formed(shape.to_spoken(), form)))

    def _render(self, spoken: Spoken) -> str:
        given = PausingList(self._finished(message) for message in with_pauses(spoken.messages))
        end = f"\ue000{secrets.token_hex(12)}-end\ue001" if spoken.continued else ""
        if end:
            given[-1] = self._finished(spoken.messages[-1], end)
        text = str(
            self.tokenizer.apply_chat_template(
                given,
                tools=PausingList(spoken.tools) if spoken.tools else None,
                chat_template=None if self.tokenizer.chat_template else PLAIN_TEMPLATE,
                tokenize=False,
                add_generation_prompt=spoken.opens,
                **spoken.options,
            )
        )
        return text[: text.rindex(end)] if end else text

    def _finished(self, message: Said, end: str = "") -> dict[str, Any]:
        """A message as this template wants it."""
        done = {**message, "content": message["content"] + end}
        if self.as_system and message["role"] == "developer":
            done["role"] = "system"
        if self.takes_parts:
            done["content"] = [{"type": "text", "text": done["content"]}]
        if (reasoning := done.pop(_REASONING[0], None)) is not None:
            done[self.reasoning] = reasoning
        if "tool_calls" in message:
            done["tool_calls"] = [self._finished_call(call) for call in message["tool_calls"]]
        if self.short_ids and "tool_call_id" in message:
            done["tool_call_id"] = _shortened(message["tool_call_id"])
        return done

    def _finished_call(self, call: Said) -> dict[str, Any]:
        function = call["function"]
        if self.takes_text:
            written = json.dumps(function["arguments"], ensure_ascii=False)
            function = {**function, "arguments": written}
        id = _shortened(call["id"]) if self.short_ids else call["id"]
        return {**call, "id": id, "function": function}


_ANSWERED = Shape.of_roles("user", "assistant")


def _shortened(id: str) -> str:
    """An id of nine letters and digits, always the same for the same id."""
    if _NINE.fullmatch(id):
        return id
    number = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8])
    return "".join(_LETTERS[number // 62**place % 62] for place in range(9))


def _refused(error: Exception) -> InvalidRequest:
    return InvalidRequest(
        f"the model's chat template refuses this conversation: {one_line(error)}", param="messages"
    )


def _left_out(shape: Shape, lost: int) -> InvalidRequest:
    if lost == NOWHERE:
        return InvalidRequest("the model's chat template leaves out tools here", param="tools")
    return InvalidRequest(
        "the model's chat template leaves out a message of the role"
        f" {shape.turns[lost].role!r} here",
        param=f"messages[{lost}].role",
    )
