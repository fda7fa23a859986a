"""One stream on its way through the turns: what it wants, where it is, what became of it. Pure.

It does not know of other streams.
"""

from __future__ import annotations

from enum import Enum

from attrs import define, frozen

from chatstream_trio.engine.blocks import Table
from chatstream_trio.engine.drafts import Drafter
from chatstream_trio.engine.runner import GREEDY, Likelihood, Pooling, Sampling, Step


class Ending(Enum):
    """How a stream came to its end."""

    STOP = "stop"
    """End of sequence, or a stop token; or the vector is there that was asked for."""
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
    """Tokens of the whole answer at most, what is said already included."""
    sampling: Sampling = GREEDY
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the stream, end of sequence among them. They are not part of the answer."""
    said: tuple[int, ...] = ()
    """What it has said already, maybe by another runner: it goes on behind that."""
    adapter: str | None = None
    """The adapter that it is computed with, as in :class:`~.runner.Start`."""
    pool: Pooling | None = None
    """How it gives a vector instead of tokens, as in :class:`~.runner.Start`; ``max_tokens`` is 0
    then."""
    prompt_logprobs: int | None = None
    """What is asked about its prompt's tokens, as in :class:`~.runner.Start`."""


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
    """Whether it was preempted, or lost its runner: it goes on later."""
    logprobs: tuple[Likelihood, ...] = ()
    """How likely each of the tokens was, where the stream asked."""
    prompt_logprobs: tuple[Likelihood, ...] = ()
    """How likely each token of its prompt was but the first, where the stream asked; once, with its
    first token."""
    stop_token: int | None = None
    """The token that ended it, which is not part of the answer."""
    pooled: tuple[float, ...] | None = None
    """The vector, where the stream asked for one; it has ended with it."""


@define
class Stream:
    """A stream that is not over, in one of four states:

    1. It has not begun: the runner was not told of it, and it has no block table.
    2. It prefills: it has a block table, and ``read < goal``. What it has said before is read as
       well, as if it were prompt.
    3. It decodes: it has a block table, and ``read >= goal``. Its last token is not read yet.
    4. It was preempted: the runner was told of it, and it has no block table. It keeps its row.

    It goes from 1 to 2 to 3, and from 2 and 3 to 4 and from there to 2 again.
    """

    spec: StreamSpec
    row: int
    """Its row of the runner, for its whole life."""
    tokens: list[int]
    """Its prompt, and what it has said; it only grows."""
    longest: int
    """Tokens with which it ends, its prompt included. All blocks together have room for so many."""
    goal: int = 0
    """So many tokens are read as a prompt, chunk by chunk; the rest is fed one by one. Set anew
    whenever it is given a block table: to all that it has by then."""
    read: int = 0
    """Tokens that are noted in its blocks, from the first on; right guesses are noted with the next
    step. Means nothing without a block table."""
    table: Table | None = None
    """Its block table. None: it was preempted, or has not begun."""
    told: bool = False
    """Whether the runner was told of it, in this row. It stays so when the stream is preempted."""
    cached: int = 0
    """Prompt tokens that were in the KV memory when it began. A later start changes nothing."""
    drafter: Drafter | None = None
    """Guesses what it says next, where speculation is on."""

    @property
    def produced(self) -> int:
        """How many tokens it has said."""
        return len(self.tokens) - len(self.spec.prompt)

    @property
    def asks(self) -> int | None:
        """What it still asks about its prompt: nothing, once it was told with its first token."""
        return None if self.produced else self.spec.prompt_logprobs

    @property
    def reads_all(self) -> bool:
        """Whether it is told what is only known of tokens that are read."""
        return self.asks is not None or self.spec.pool is Pooling.MEAN

    @property
    def decodes(self) -> bool:
        """Whether its next part in a turn is a decode step."""
        return self.table is not None and self.read >= self.goal

    def draft(self, room: int) -> tuple[int, ...]:
        """A guess at what it says next, of at most ``room`` tokens."""
        room = min(room, self.longest - len(self.tokens) - 1)
        if self.drafter is None or room < 1:
            return ()
        return self.drafter.guess(self.tokens, room)

    def accept(self, step: Step) -> StreamOutcome:
        """Take new tokens, and how likely they were, up to the first that ends the stream; or the
        vector, which ends it."""
        if step.pooled is not None:
            number, cached = self.spec.number, self.cached
            return StreamOutcome(
                number, finished=Ending.STOP, cached_tokens=cached, pooled=step.pooled
            )
        kept: list[int] = []
        ending, stop = None, None
        for token in step.tokens:
            if token in self.spec.stop_token_ids and self.produced >= self.spec.sampling.min_tokens:
                ending, stop = Ending.STOP, token
                break
            kept.append(token)
            self.tokens.append(token)
            if len(self.tokens) >= self.longest:
                ending = Ending.LENGTH
                break
        return StreamOutcome(
            self.spec.number,
            tuple(kept),
            ending,
            cached_tokens=self.cached,
            logprobs=step.logprobs[: len(kept)],
            prompt_logprobs=step.prompt_logprobs,
            stop_token=stop,
        )
