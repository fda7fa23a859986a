"""A conversation as a model reads it: the model's own chat template, then its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen
from tokenizers import Tokenizer

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.text.codec import Prompt
from chatstream_trio.text.detokenize import IncrementalDecoder

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}\n"
    "{% endfor %}Assistant:"
)
"""For base models without a template of their own."""


@frozen
class ChatCodec:
    """The chat template and tokenizer of a transformers model.

    Args:
        tokenizer: A fast ``PreTrainedTokenizer`` (one with a ``tokenizers`` backend).
    """

    tokenizer: Any
    _backend: Tokenizer = field(init=False)

    def __attrs_post_init__(self) -> None:
        # The backend itself, without the padding and truncation that transformers sets on it at
        # each call: those are not safe to change while another thread encodes.
        object.__setattr__(self, "_backend", self.tokenizer.backend_tokenizer)

    def read(self, messages: Sequence[Mapping[str, str]]) -> Prompt:
        """Render the template and tokenize; see :class:`~chatstream_trio.text.codec.Codec`."""
        text = self._render(messages)
        # Of the two only this one gives up Python's lock: a text of 4 MB takes seconds.
        (encoding,) = self._backend.encode_batch([text], add_special_tokens=False)
        tokens = encoding.ids
        if not tokens:
            raise InvalidRequest("the prompt is empty", param="messages")
        return Prompt(tuple(tokens), IncrementalDecoder(self._backend))

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        from jinja2 import TemplateError

        template = None if self.tokenizer.chat_template else PLAIN_TEMPLATE
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=template,
                    tokenize=False,
                    add_generation_prompt=True,
                )
            )
        except TemplateError as error:
            # Some templates refuse system messages, or two messages of one role in a row.
            raise InvalidRequest(
                f"the model's chat template refuses this conversation: {error}", param="messages"
            ) from None
