"""One request, as its client saw it. No I/O; times are ``time.monotonic()`` seconds."""

from __future__ import annotations

import itertools
from enum import Enum

from attrs import define, field

REFUSALS = (429, 503)


class SampleEnding(Enum):
    """What became of a request."""

    DONE = "done"
    """The whole answer came."""
    REFUSED = "refused"
    """Status 429 or 503: the server says that it cannot now."""
    FAILED = "failed"
    """Everything else; ``Sample.error`` is its code."""
    UNFINISHED = "unfinished"
    """The measurement was ended before it was."""


@define
class Sample:
    """A request and what came back."""

    user: int
    scheduled: float
    """When the request should have been sent."""
    started: float
    """When the request was sent; latencies count from here."""
    status: int | None = None
    retry_after: float | None = None
    """Seconds after which the server says that one may ask again."""
    chunks: list[float] = field(factory=list)
    """When each piece of text came."""
    prompt_tokens: int = 0
    usage: int | None = None
    """Tokens of the answer as the server counted them."""
    finish: str | None = None
    error: str | None = None
    ended: float | None = None

    @property
    def outcome(self) -> SampleEnding:
        """What became of the request."""
        if self.ended is None:
            return SampleEnding.UNFINISHED
        if self.error is None:
            return SampleEnding.DONE
        return SampleEnding.REFUSED if self.status in REFUSALS else SampleEnding.FAILED

    @property
    def tokens(self) -> int:
        """Tokens of the answer, by the server's count, else by the chunks."""
        return len(self.chunks) if self.usage is None else self.usage

    @property
    def ttft(self) -> float | None:
        """Seconds to the first piece of text."""
        return self.chunks[0] - self.started if self.chunks else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between pieces of text, however many tokens are in each."""
        return [b - a for a, b in itertools.pairwise(self.chunks)]
