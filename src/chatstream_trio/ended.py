"""What is remembered of requests that are over: for a minute, and bounded."""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum

import trio
from attrs import define, field, frozen

from chatstream_trio.errors import StreamCancelled
from chatstream_trio.generation import Generation

REMEMBER_SECONDS = 60.0
"""How long the outcome of an ended request can be asked for."""
REMEMBER_MOST = 4096


class Outcome(Enum):
    """How a request ended."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    ABANDONED = "abandoned"
    """Whoever asked was gone before the end."""


@frozen
class Ended:
    """What is remembered of a request that is over."""

    id: str
    key: str
    outcome: Outcome
    prompt_tokens: int
    completion_tokens: int

    @classmethod
    def of(cls, generation: Generation) -> Ended:
        """How this request ended, or is about to."""
        if isinstance(generation.error, StreamCancelled):
            outcome = Outcome.CANCELLED
        elif generation.error is not None:
            outcome = Outcome.FAILED
        elif generation.finish_reason is not None:
            outcome = Outcome.FINISHED
        else:
            outcome = Outcome.ABANDONED
        usage = generation.usage
        return cls(
            generation.id, generation.key, outcome, usage.prompt_tokens, usage.completion_tokens
        )


@define
class EndedRequests:
    """The requests that ended lately, by id; of two with one id, the later."""

    _ended: OrderedDict[str, tuple[float, Ended]] = field(factory=OrderedDict, init=False)

    def remember(self, ended: Ended) -> None:
        """Remember it from now on; forget what is too old, or too much."""
        now = trio.current_time()
        self._ended[ended.id] = (now, ended)
        self._ended.move_to_end(ended.id)
        while True:
            time, _ = next(iter(self._ended.values()))
            if time > now - REMEMBER_SECONDS and len(self._ended) <= REMEMBER_MOST:
                return
            self._ended.popitem(last=False)

    def find(self, id: str) -> Ended | None:
        """The one with this id, if it ended within the last minute."""
        if id not in self._ended:
            return None
        time, ended = self._ended[id]
        return ended if trio.current_time() - time <= REMEMBER_SECONDS else None
