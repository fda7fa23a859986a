"""What is remembered of requests that are over: for a minute, and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum

import trio
from attrs import define, field, frozen

from chatstream_trio.errors import StreamCancelled
from chatstream_trio.generation.generation import Generation

REMEMBER_SECONDS = 60.0
"""How long the outcome of an ended request can be asked for."""
REMEMBER_MOST = 2048
"""A minute of 34 requests a second; a quarter of a KiB each."""


class RequestEnding(Enum):
    """How a request ended."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ABANDONED = "abandoned"
    """Whoever asked was gone before the end."""


@frozen
class Ended:
    """What is remembered of a request that is over. There are thousands: it is kept small."""

    id: str
    key: str = field(repr=False)
    outcome: RequestEnding
    prompt_tokens: int
    completion_tokens: int
    at: float = field(factory=trio.current_time)
    """When, by Trio's clock."""

    @classmethod
    def of(cls, generations: Sequence[Generation], earlier: int = 0) -> Ended:
        """How a request ended, or is about to: all of its choices, and what was read before."""
        errors = [it.error for it in generations if it.error is not None]
        if any(isinstance(error, StreamCancelled) for error in errors):
            outcome = RequestEnding.CANCELLED
        elif errors:
            outcome = RequestEnding.FAILED
        elif all(it.finish_reason is not None for it in generations):
            outcome = RequestEnding.FINISHED
        else:
            outcome = RequestEnding.ABANDONED
        first = generations[0]
        prompts = sum(it.usage.prompt_tokens for it in generations if it.leader is None) + earlier
        answers = sum(it.usage.completion_tokens for it in generations)
        return cls(first.id, first.key, outcome, prompts, answers)


@define
class EndedRequests:
    """The requests that ended lately, by id; of two with one id, the later."""

    _by_id: dict[str, Ended] = field(factory=dict, init=False)
    _in_order: deque[Ended] = field(factory=deque, init=False)

    def remember(self, ended: Ended) -> None:
        """Remember it from now on; forget what is too old, or too much."""
        self._by_id[ended.id] = ended
        self._in_order.append(ended)
        while len(self._in_order) > REMEMBER_MOST or _is_old(self._in_order[0]):
            oldest = self._in_order.popleft()
            if self._by_id.get(oldest.id) is oldest:
                del self._by_id[oldest.id]

    def find(self, id: str) -> Ended | None:
        """The one with this id, if it ended within the last minute."""
        ended = self._by_id.get(id)
        return None if ended is None or _is_old(ended) else ended


def _is_old(ended: Ended) -> bool:
    return trio.current_time() > ended.at + REMEMBER_SECONDS
