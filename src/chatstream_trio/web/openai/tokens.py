"""``/tokenize`` and ``/detokenize``, as vLLM has them: from a text or a conversation, and back.

All of it is done in a thread of the side, the reply included. This module knows no seat: it takes
none, and waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from quart import Response

from chatstream_trio.aside.pauses import with_pauses
from chatstream_trio.errors import InvalidRequest, UnsupportedField
from chatstream_trio.house import Names
from chatstream_trio.request import ChatRequest
from chatstream_trio.service import ChatStream
from chatstream_trio.text.codec import Codec
from chatstream_trio.web.answering import answer_aside
from chatstream_trio.web.bodies.reading import Foreign, Unknown, Wire, read
from chatstream_trio.web.openai.foreign import CHANGES_NOTHING, is_off
from chatstream_trio.web.openai.schema import ChatMessage
from chatstream_trio.web.sse import to_json

_OF_A_PROMPT = (
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "chat_template_kwargs",
    "tools",
)


class TokenizeBody(Wire, frozen=True):
    """The body of ``POST /tokenize``: a text, or a conversation."""

    foreign = Foreign(
        {name: CHANGES_NOTHING[name] for name in _OF_A_PROMPT} | {"return_token_strs": is_off}
    )
    prompt: str | None = None
    messages: list[ChatMessage] | None = None
    model: str | None = None
    add_special_tokens: bool | None = None
    """Whether the tokens are put there that the tokenizer puts around a text. Default: around a
    text, and not around a conversation, whose template writes them."""


class DetokenizeBody(Wire, frozen=True):
    """The body of ``POST /detokenize``."""

    tokens: list[int]
    model: str | None = None


@frozen
class Reading:
    """What there is to know besides a body."""

    codec: Codec
    vocab_size: int
    max_model_len: int
    names: Names
    unknown: Unknown


def tokenized(body: bytes, given: Reading) -> bytes:
    """The reply to a body of ``POST /tokenize``.

    Raises:
        InvalidRequest, ModelNotServed: It cannot be done; ``param`` says where.
    """
    said = read(TokenizeBody, body, with_pauses, given.unknown)
    given.names.check(said.model)
    tokens = _encode(said, given.codec)
    return to_json(
        {
            "count": len(tokens),
            "max_model_len": given.max_model_len,
            "tokens": tokens,
            "token_strs": None,
        }
    )


def detokenized(body: bytes, given: Reading) -> bytes:
    """The reply to a body of ``POST /detokenize``.

    Raises:
        InvalidRequest, ModelNotServed: It cannot be done; ``param`` says where.
    """
    said = read(DetokenizeBody, body, with_pauses, given.unknown)
    given.names.check(said.model)
    if said.tokens and not 0 <= min(said.tokens) <= max(said.tokens) < given.vocab_size:
        numbered = with_pauses(enumerate(said.tokens))
        wrong = next(at for at, id in numbered if not 0 <= id < given.vocab_size)
        raise InvalidRequest(
            f"a token id must be from 0 to {given.vocab_size - 1}", param=f"tokens[{wrong}]"
        )
    return to_json({"prompt": given.codec.decode(said.tokens)})


def _encode(said: TokenizeBody, codec: Codec) -> tuple[int, ...]:
    if said.prompt is not None:
        if said.messages is not None:
            raise InvalidRequest("prompt and messages exclude each other", param="messages")
        return codec.encode(said.prompt, special=said.add_special_tokens is not False)
    if said.messages is None:
        raise InvalidRequest("prompt or messages are required", param="prompt")
    if said.add_special_tokens:
        raise UnsupportedField(
            "the chat template itself writes what is around a conversation",
            param="add_special_tokens",
        )
    messages = [message.to_message(with_pauses) for message in with_pauses(said.messages)]
    return codec.read(ChatRequest(messages).said).tokens


async def tokenize() -> Response:
    """The tokens of a text, or of a conversation as the model would read it."""
    return await _answer(tokenized)


async def detokenize() -> Response:
    """The text of some tokens."""
    return await _answer(detokenized)


async def _answer(work: Callable[[bytes, Reading], bytes]) -> Response:
    def read_it(body: bytes, chat: ChatStream, unknown: Unknown) -> bytes:
        info = chat.info
        given = Reading(chat.codec, info.vocab_size, info.max_model_len, chat.names, unknown)
        return work(body, given)

    return await answer_aside(read_it)
