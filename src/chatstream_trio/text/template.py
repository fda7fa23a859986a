"""A model's chat template, and what it was found to do with a conversation.

Templates leave things out without a word: a role that they do not know, a system message that does
not come first, content of another form. So a template is tried before it is believed, with words
that can be found again in what it makes of them. This module knows no tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from attrs import field, frozen

from chatstream_trio.aside.pauses import PausingList, with_pauses
from chatstream_trio.errors import InvalidRequest, ModelNotLoaded, one_line

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}\n"
    "{% endfor %}Assistant:"
)
"""For base models without a template of their own."""

_FEW = 64
"""Messages of a conversation whose trial is remembered."""


@frozen
class ChatTemplate:
    """The template of a transformers tokenizer.

    Args:
        tokenizer: Its ``chat_template`` is used, or :data:`PLAIN_TEMPLATE`.

    Raises:
        ModelNotLoaded: It is broken: it cannot say even what one user says.
    """

    tokenizer: Any
    takes_parts: bool = field(init=False)
    """Whether it wants content as a list of parts."""
    as_system: bool = field(init=False)
    """Whether a developer's message has to go in as the system's."""
    _trial: Callable[[tuple[str, ...]], int | None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        found = self._find_form()
        object.__setattr__(self, "takes_parts", found)
        object.__setattr__(self, "as_system", False)
        object.__setattr__(self, "_trial", lru_cache(maxsize=256)(self._first_left_out))
        developer, system = (self._keeps((role, "user")) for role in ("developer", "system"))
        object.__setattr__(self, "as_system", system and not developer)
        self._trial.cache_clear()  # type: ignore[attr-defined]

    @property
    def source(self) -> str:
        """What it is written as, all of it; empty for :data:`PLAIN_TEMPLATE`."""
        template = self.tokenizer.chat_template or ""
        return template if isinstance(template, str) else "\n".join(template.values())

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt, ready for the model's answer.

        Raises:
            InvalidRequest: The template refuses this conversation.
        """
        try:
            return self._render(messages)
        except Exception as error:  # whatever a template may do with what it is given
            # Some refuse system messages, or two messages of one role in a row.
            raise InvalidRequest(
                f"the model's chat template refuses this conversation: {one_line(error)}",
                param="messages",
            ) from None

    def check(self, messages: Sequence[Mapping[str, str]]) -> None:
        """Refuse a conversation of which the template would leave out a message.

        Raises:
            InvalidRequest: ``param`` names the first that it would.
        """
        roles = tuple(message["role"] for message in messages)
        try:
            lost = (self._trial if len(roles) <= _FEW else self._first_left_out)(roles)
        except Exception:
            return  # it refuses the conversation itself, and will say so
        if lost is not None:
            raise InvalidRequest(
                f"the model's chat template leaves out a message of the role {roles[lost]!r} here",
                param=f"messages[{lost}].role",
            )

    def _find_form(self) -> bool:
        failure: Exception | None = None
        for parts in (False, True):
            object.__setattr__(self, "takes_parts", parts)
            object.__setattr__(self, "as_system", False)
            try:
                if self._first_left_out(("user",)) is None:
                    return parts
            except Exception as error:
                failure = failure or error
        why = "it leaves out what a user says" if failure is None else one_line(failure)
        raise ModelNotLoaded(f"the model's chat template cannot be used: {why}")

    def _keeps(self, roles: tuple[str, ...]) -> bool:
        try:
            return self._first_left_out(roles) is None
        except Exception:
            return False

    def _first_left_out(self, roles: tuple[str, ...]) -> int | None:
        said = [f"message{index}here" for index in range(len(roles))]
        trial = [{"role": role, "content": word} for role, word in zip(roles, said, strict=True)]
        text, at = self._render(trial), 0
        for index, word in with_pauses(enumerate(said)):
            found = text.find(word, at)  # they come in order, in most templates
            at = found if found >= 0 else text.find(word)
            if at < 0:
                return index
        return None

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        given = PausingList(self._formed(message) for message in with_pauses(messages))
        template = None if self.tokenizer.chat_template else PLAIN_TEMPLATE
        text = self.tokenizer.apply_chat_template(
            given, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        return str(text)

    def _formed(self, message: Mapping[str, str]) -> dict[str, Any]:
        formed: dict[str, Any] = dict(message)
        if self.as_system and message["role"] == "developer":
            formed["role"] = "system"
        if self.takes_parts:
            formed["content"] = [{"type": "text", "text": message["content"]}]
        return formed
