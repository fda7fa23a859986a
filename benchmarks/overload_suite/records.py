"""What is asked of a server, and what was seen to come back. No I/O here.

All times are ``time.monotonic()`` seconds, which on one machine is the same clock for everybody.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from enum import Enum
from math import inf
from typing import Any

from attrs import Factory, define, field, frozen


class How(Enum):
    """How a client goes away."""

    FIN = "fin"
    RST = "rst"
    HALF = "half-close"
    """It closes its sending half only, and reads on."""


class Reading(Enum):
    """How a client reads what comes."""

    AT_ONCE = "at once"
    SLOWLY = "1 byte/s"
    NEVER = "never"


class Ending(Enum):
    """What became of a request, as its client saw it."""

    SERVED = "served"
    REFUSED = "refused"
    """429."""
    FAILED = "failed"
    """Any other status, or an error event; ``Record.error`` is its code."""
    CUT = "cut"
    """Headers came, and then the connection ended without an error event: never right."""
    UNANSWERED = "unanswered"
    """The connection ended before any headers."""
    UNREACHABLE = "unreachable"
    """There was no connection."""
    LEFT = "left"
    """The client went away, as it had been told to."""
    HUNG = "hung"
    """Nothing ended it within the suite's patience: never right."""


@frozen
class Leave:
    """A client goes away at whichever of these comes first."""

    how: How
    seconds: float = inf
    """After it began to connect."""
    chunks: float = inf
    """After it has read this many chunks of text."""


@frozen(kw_only=True)
class Ask:
    """One request."""

    text: str
    """The user's message."""
    max_tokens: int
    expected: str | None = None
    """The whole answer that an idle server gives; None where that is not known."""
    model: str | None = None
    stream: bool = True
    key: str | None = None
    """Sent as bearer token."""
    id: str | None = None
    leave: Leave | None = None
    reading: Reading = Reading.AT_ONCE
    fields: Mapping[str, Any] = Factory(dict)
    """More fields of the body."""


@frozen
class Queued:
    """What a waiting client was told, and when."""

    at: float
    position: int
    eta: float | None


@define
class Record:
    """One request and everything that was seen of it."""

    ask: Ask
    scheduled: float
    """When it should have been sent."""
    started: float
    """When it began to connect; latencies count from here, the generator's own lag apart."""
    headers_at: float | None = None
    seat_at: float | None = None
    """The first chunk, which has the role and no text, is sent when the seat is had."""
    left_at: float | None = None
    ended_at: float | None = None
    status: int | None = None
    retry_after: float | None = None
    queue: list[Queued] = field(factory=list)
    chunks: list[float] = field(factory=list)
    """When each piece of text came."""
    texts: list[str] = field(factory=list)
    tokens: int = 0
    """As the server counted them; of an answer that is not complete, 0."""
    finish: str | None = None
    done: bool = False
    """Whether the stream ended with ``[DONE]``."""
    error: str | None = None
    ending: Ending = Ending.HUNG

    @property
    def text(self) -> str:
        """All text that came."""
        return "".join(self.texts)

    @property
    def lag(self) -> float:
        """How late the load generator itself was."""
        return self.started - self.scheduled

    @property
    def ttft(self) -> float | None:
        """Seconds to the first piece of text."""
        return self.chunks[0] - self.started if self.chunks else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces of text."""
        return [b - a for a, b in itertools.pairwise(self.chunks)]
