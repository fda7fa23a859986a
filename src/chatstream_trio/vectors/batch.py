"""Many texts that become vectors, as one request: each takes a seat, one after the other.

At most one of them waits in the line at a time. When it is seated, the next one enters; where no
seat is free, that one waits as any other request does, so that others have their turn. So a request
of a thousand texts takes one place in the waiting room, and as many seats as are dealt to it. What
is done is kept as a vector, and nothing else of it.

Everything here is synchronous, but for who waits for the end.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from math import hypot, isfinite
from typing import Any

import trio
from attrs import define, field

from chatstream_trio.admission.admission import Ticket
from chatstream_trio.errors import ChatStreamError, QueueFull, StreamFault
from chatstream_trio.generation.generation import Generation
from chatstream_trio.generation.phases import Phase, Phases
from chatstream_trio.generation.state import GenerationState
from chatstream_trio.request import CompletionRequest
from chatstream_trio.text.codec import Prompt


@define(eq=False)
class Batch:
    """The texts of one request, and what became of them."""

    _requests: Sequence[CompletionRequest]
    _make: Callable[..., Generation]
    """Makes a generation of a request, given ``on_change``."""
    _enter: Callable[..., Ticket]
    """:meth:`Admission.enter`."""
    _changed: Callable[[], None]
    """Told of every change, as by any generation."""
    phases: Phases = field(factory=Phases, init=False)
    """Of the whole: its seat is the first one, its first token the first vector."""
    live: list[Generation] = field(factory=list, init=False)
    """Those that have entered and are not over, and the last one in any case."""
    prompt_tokens: int = field(default=0, init=False)
    """Of those that are over."""
    error: ChatStreamError | None = field(default=None, init=False)
    """What ended it, if it failed."""
    _vectors: list[array[float]] = field(init=False)
    _numbers: dict[Generation, int] = field(factory=dict, init=False)  # of those that are not over
    _left: deque[int] = field(init=False)  # numbers of those that have not entered
    _prompts: Sequence[Prompt] | None = field(default=None, init=False)  # once they are measured
    _ticket: Ticket = field(init=False)  # of the first
    _over: trio.Event = field(factory=trio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self._vectors = [array("f") for _ in self._requests]
        self._left = deque(range(len(self._requests)))

    # ---- Its life

    def begin(self) -> None:
        """Let the first one enter the line.

        Raises:
            QueueFull: It may not.
        """
        self._let_in(self._enter_first)

    def _enter_first(self, *args: Any, **named: Any) -> Ticket:
        self._ticket = self._enter(*args, **named)
        return self._ticket

    def prepare(self, prompts: Sequence[Prompt]) -> None:
        """Take the measured prompts, of all of them."""
        self._prompts = prompts
        self.phases.reach(Phase.MEASURED)
        for generation, number in list(self._numbers.items()):
            self._prepare(generation, number)
        self._look()

    def fail(self, error: ChatStreamError) -> None:
        """End all of it with an error. Nothing happens if it is over."""
        if self._over.is_set():
            return
        self.error = error
        self.stop()
        for generation in reversed(self.live):
            generation.fail(error)

    def stop(self) -> None:
        """Nothing enters any more. What has entered is ended by others."""
        self._left.clear()
        self.phases.reach(Phase.ENDED)
        self._over.set()

    async def vectors(self) -> Sequence[Sequence[float]]:
        """Wait for all vectors: in the order of the texts, in single precision, of any length.

        Raises:
            ChatStreamError: It failed.
        """
        await self._over.wait()
        if self.error is not None:
            raise self.error
        return self._vectors

    @property
    def usage(self) -> int:
        """Tokens of all texts so far."""
        return self.prompt_tokens + sum(it.usage.prompt_tokens for it in self.live)

    # ---- One after the other

    def _let_in(self, enter: Callable[..., Ticket]) -> None:
        number = self._left[0]
        generation = self._make(self._requests[number], on_change=self._hear)
        generation.take_ticket(enter)  # which may refuse it
        self._left.popleft()
        self.live.append(generation)
        self._numbers[generation] = number
        if self._prompts is not None:
            self._prepare(generation, number)

    def _prepare(self, generation: Generation, number: int) -> None:
        assert self._prompts is not None
        try:
            generation.prepare(self._prompts[number])
        except ChatStreamError as error:
            self.fail(error)

    def _hear(self) -> None:
        """Something has changed with one of them: it was seated, or is over."""
        self._changed()
        self._look()

    def _look(self) -> None:
        if self._over.is_set():
            return
        left_a_seat = False
        for generation, number in list(self._numbers.items()):
            if generation.state is not GenerationState.WAITING:
                self.phases.reach(Phase.SEATED)
            if generation.error is not None:
                self.fail(generation.error)
                return
            if generation.finish_reason is not None:
                left_a_seat = True
                if not self._keep(generation, number):
                    self.fail(StreamFault("the model gave a vector that is none"))
                    return
        self._go_on(left_a_seat)

    def _keep(self, generation: Generation, number: int) -> bool:
        """Keep its vector, and let go of it. False, if there is something wrong with it."""
        pooled = generation.answer.pooled
        if not pooled or not isfinite(hypot(*pooled)):
            return False
        self.phases.reach(Phase.FIRST_TOKEN)
        self._vectors[number] = array("f", pooled)
        del self._numbers[generation]
        if self._numbers or self._left:
            self.prompt_tokens += generation.usage.prompt_tokens
            self.live.remove(generation)
        else:
            self.stop()
        return True

    def _go_on(self, left_a_seat: bool) -> None:
        """Let the next one enter, unless one waits. Where the house is full, whoever has a seat
        goes on when it is left."""
        if not self._left or self._prompts is None:
            return
        if any(it.state is GenerationState.WAITING for it in self._numbers):
            return
        enter: Callable[..., Any] = self._enter
        if left_a_seat:
            enter = self._ticket.again
        try:
            self._let_in(enter)
        except QueueFull:
            assert self._numbers, "whoever has left a seat has a place"
