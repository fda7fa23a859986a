"""What an API has to say for itself, to be one of those that this server speaks: a dialect.

All that the APIs have in common (who asks, the size of a body, seats, headers, when to say what of
the queue) is in :mod:`chatstream_trio.web.answering` and :mod:`chatstream_trio.web.chunks`, which
know no API. A dialect knows no connection, no seat and no engine; a new one is a folder beside
``openai/`` with these few methods, and a route for each path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Protocol, TypeVar

from attrs import frozen

from chatstream_trio.aside.pauses import Walk
from chatstream_trio.conversation import ToolCall
from chatstream_trio.events import (
    FinishReason,
    OfPrompt,
    Piece,
    Reasoning,
    Text,
    TokenLikelihood,
    ToolArguments,
    ToolCallStart,
    Usage,
)
from chatstream_trio.generation.chorus import Chorus
from chatstream_trio.generation.phases import Phases
from chatstream_trio.house import Names
from chatstream_trio.request import Request, Timeouts
from chatstream_trio.web.bodies.reading import Unknown
from chatstream_trio.web.chunks import Chunks
from chatstream_trio.web.errors import ErrorReply


@frozen
class Given:
    """What a dialect is told besides the body."""

    names: Names
    """Of the one model that is served."""
    vocab_size: int
    timeouts: Timeouts
    """Those of the headers; the shorter of theirs and the body's counts."""
    unknown: Unknown
    """To be told of fields that nobody knows."""
    decode: Callable[[Sequence[int]], str]
    """The text of tokens: see :meth:`~chatstream_trio.text.codec.Codec.decode`."""


@frozen
class Head:
    """What an answer says of itself, in whatever form."""

    id: str
    model: str
    created: int
    """Unix time in seconds."""
    fingerprint: str = ""
    """What tells this model, as it is served here, from others."""


@frozen
class Whole:
    """An answer that is complete."""

    pieces: Sequence[Piece]
    """All of it in order; neighbours of one kind are joined."""
    reason: FinishReason
    usage: Usage
    stop: str | int | None = None
    """The stop string or the stop token that ended it, if it was one that was asked for."""
    of_prompt: OfPrompt | None = None
    """How likely the tokens of the prompt were, where that was asked."""
    phases: Phases | None = None
    """When it came to what."""

    @property
    def text(self) -> str:
        """What it says."""
        return "".join([piece.text for piece in self.pieces if isinstance(piece, Text)])

    @property
    def reasoning(self) -> str:
        """What the model said to itself before."""
        return "".join([piece.text for piece in self.pieces if isinstance(piece, Reasoning)])

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tools that it calls, in order."""
        given = {it.index: it.text for it in self.pieces if isinstance(it, ToolArguments)}
        starts = [piece for piece in self.pieces if isinstance(piece, ToolCallStart)]
        return tuple(ToolCall(it.id, it.name, given.get(it.index, "")) for it in starts)

    @property
    def logprobs(self) -> tuple[TokenLikelihood, ...]:
        """Of all tokens, where they were asked for."""
        said = [piece for piece in self.pieces if not isinstance(piece, ToolCallStart)]
        return tuple(chain.from_iterable(piece.logprobs for piece in said))


class Call(Protocol):
    """A body that was read: what is asked, and how it wants to be answered."""

    @property
    def requests(self) -> Sequence[Request]:
        """What the service is asked."""

    @property
    def choices(self) -> int:
        """How many answers to each of them."""

    @property
    def stream(self) -> bool:
        """Whether the answer comes in chunks."""

    def whole(self, head: Head, answers: Sequence[Whole]) -> Any:
        """The whole answer, as what will be JSON: of one for each choice of each request."""

    def chunks(self, head: Head, answers: Chorus) -> Chunks:
        """The answer piece by piece."""


C_co = TypeVar("C_co", covariant=True)


class Dialect(Protocol[C_co]):
    """One API's way to ask and to be answered; what it reads is a :class:`Call`, where it is asked
    for an answer."""

    def new_id(self) -> str:
        """A fresh id of the API's kind, for a request that brought none."""

    def parse(self, body: bytes, given: Given, walk: Walk) -> C_co:
        """Read a body. What is large is read in a thread of the side: wait for nothing here.

        Args:
            body: As it came, unpacked; at most ``max_body_bytes``.
            given: What else there is to know.
            walk: Goes through what a client may have made long.

        Raises:
            InvalidRequest: It cannot be read, or asks for what cannot be; ``param`` says where.
            ModelNotServed: It asks for another model.
        """

    def error(self, reply: ErrorReply) -> Any:
        """The body of a refusal, as what will be JSON. Within a stream: :meth:`Chunks.error`."""
