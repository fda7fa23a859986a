"""One stream on its way through the turns: what it wants, where it is, what became of it. Pure.

It does not know of other streams.
"""

from __future__ import annotations

from enum import Enum

from attrs import define, frozen

from chatstream_trio.engine.blocks import Table
from chatstream_trio.engine.drafts import Drafter
from chatstream_trio.engine.runner import GREEDY, Sampling


class Ending(Enum):
    """How a stream came to its end."""

    STOP = "stop"
    """End of sequence, or a stop token."""
    LENGTH = "length"
    """``max_tokens`` were produced."""
    CANCELLED = "cancelled"
    FAULT = "fault"
    """Something went wrong with this stream, and with no other."""
    LOST = "lost"
    """The engine has ended, and with it all streams."""


@frozen
class StreamSpec:
    """What the engine must know to run one stream."""

    number: int
    """Unique for the engine's life; the engine gives it."""
    prompt: tuple[int, ...]
    max_tokens: int
    """Of the whole answer, with what is said already."""
    sampling: Sampling = GREEDY
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the stream, end of sequence among them. They are not part of the answer."""
    said: tuple[int, ...] = ()
    """What it has said already, maybe by another runner: it goes on behind that."""
    adapter: str | None = None
    pool: bool = False
    prompt_logprobs: int | None = None
    """These three as in :class:`~.runner.Start`."""


@frozen
class StreamOutcome:
    """What one stream got out of a turn. With ``finished`` set, its row is free again."""

    number: int
    tokens: tuple[int, ...] = ()
    finished: Ending | None = None
    fault: str | None = None
    cached_tokens: int = 0
    """Tokens of its prompt that did not have to be read."""
    paused: bool = False
    """Whether it had to give its memory back; it goes on later."""


@define
class Stream:
    spec: StreamSpec
    row: int
    tokens: list[int]
    """Its prompt, and what it has said."""
    longest: int
    """Tokens that it may come to have, its prompt included."""
    goal: int = 0
    """So many tokens are read as a prompt; the rest is fed one by one."""
    read: int = 0
    """Tokens that are in the KV memory."""
    table: Table | None = None
    """Its blocks. None: it is paused, or has not begun."""
    told: bool = False
    """Whether the runner has heard of it."""
    cached: int = 0
    """Prompt tokens that were in the KV memory when it began."""
    drafter: Drafter | None = None
    """Guesses what it says next, where speculation is on."""

    @property
    def produced(self) -> int:
        return len(self.tokens) - len(self.spec.prompt)

    @property
    def decodes(self) -> bool:
        return self.table is not None and self.read >= self.goal

    def draft(self, room: int) -> tuple[int, ...]:
        """A guess at what it says next, of at most ``room`` tokens."""
        room = min(room, self.longest - len(self.tokens) - 1)
        if self.drafter is None or room < 1:
            return ()
        return self.drafter.guess(self.tokens, room)

    def accept(self, new: tuple[int, ...]) -> StreamOutcome:
        """Take new tokens up to the first that ends the stream."""
        kept: list[int] = []
        ending = None
        for token in new:
            if token in self.spec.stop_token_ids:
                ending = Ending.STOP
                break
            kept.append(token)
            self.tokens.append(token)
            if len(self.tokens) >= self.longest:
                ending = Ending.LENGTH
                break
        return StreamOutcome(self.spec.number, tuple(kept), ending, cached_tokens=self.cached)
