"""The life of one request: ticket -> seat -> tokens -> answer, and every way out of it.

Everything here is synchronous. The dealing task says ``seated``, the engine delivers outcomes, the
owner of the request closes; none of them waits for another, so a reader who has stopped reading
holds up nobody, and a stop string is found when its last token arrives and not when somebody looks.
What was said is in the :class:`~chatstream_trio.text.answer.Answer`, and who reads it has a cursor
of its own (:class:`~chatstream_trio.generation.reader.Reader`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from chatstream_trio.admission.admission import Ticket
from chatstream_trio.engine.face import Engine, Handle
from chatstream_trio.engine.streams import StreamOutcome
from chatstream_trio.errors import (
    ChatStreamError,
)
from chatstream_trio.events import (
    FinishReason,
    Queued,
    Usage,
)
from chatstream_trio.generation.output import Output
from chatstream_trio.generation.phases import Phase, Phases
from chatstream_trio.generation.prepared import Prepared
from chatstream_trio.generation.reader import Bell, Reader, Readers
from chatstream_trio.generation.state import GenerationState
from chatstream_trio.request import Request
from chatstream_trio.text.answer import Answer
from chatstream_trio.text.codec import Prompt

logger = logging.getLogger(__name__)


_PHASES = {
    GenerationState.PREFILLING: Phase.SEATED,
    GenerationState.DECODING: Phase.FIRST_TOKEN,
    GenerationState.ENDED: Phase.ENDED,
}


class Generation:
    """A live request.

    ``async for event in generation`` reads its answer from the beginning; ``read`` from
    anywhere. Reading raises the error that ended the request, after the text that came before it:
    :class:`StreamFault`, :class:`StreamCancelled`, :class:`EngineFailed`, :class:`Draining`.

    :class:`~chatstream_trio.service.ChatStream` makes these; use its ``generate``.
    """

    def __init__(
        self,
        request: Request,
        *,
        id: str,
        key: str,
        engine: Engine,
        on_change: Callable[[], None],
        spacing: Callable[[], float],
        leader: Generation | None = None,
    ) -> None:
        """``spacing``: seconds that should lie between two pieces of text, as of now. ``leader``:
        another one with the same prompt; what that has read need not be read again."""
        self.id = id
        self.key = key
        self.request = request
        self.phases = Phases()
        """When it came to what."""
        self.answer = Answer()
        """What was said so far."""
        self._engine = engine
        self._on_change = on_change
        self._spacing = spacing
        self.state = GenerationState.WAITING
        """Where it is. One method changes it, and nothing else."""
        self._ticket: Ticket  # taken before anything else
        self._prepared: Prepared | None = None  # from when its prompt was measured
        self._output: Output | None = None  # from then on too
        self._stream: Handle | None = None  # the engine's, until it has let go of it
        self.leader = leader
        self._followers: list[Generation] = []  # who have not begun
        if leader is not None:
            leader._followers.append(self)
        self.readers = Readers()
        """Those who may still have to be told something."""

    def _become(self, state: GenerationState) -> None:
        """Change the state. It changes nowhere else, and the end is for good."""
        if self.state in (state, GenerationState.ENDED):
            return
        if self.state is GenerationState.PAUSED:
            self.phases.resume()
        self.state = state
        if state is GenerationState.PAUSED:
            self.phases.pause()
        else:
            self.phases.reach(_PHASES[state])
        self._on_change()
        if self.has_read:
            for follower in self._followers:
                follower._start_if_ready()

    # ---- From the waiting room to the engine

    def take_ticket(self, enter: Callable[..., Ticket]) -> None:
        """Enter the line. Raises what ``enter`` (:meth:`Admission.enter`) raises."""
        self._ticket = enter(self.key, on_seat=self._take_seat, on_move=self.readers.hear_move)

    def prepare(self, prompt: Prompt, stop_tokens: frozenset[int] = frozenset()) -> None:
        """Take the measured prompt; it may begin as soon as it has a seat. ``stop_tokens`` end the
        answer, besides those that the request names.

        Raises:
            ContextTooLong: It leaves no room for an answer.
        """
        self._prepared = Prepared.of(self.request, prompt, stop_tokens, self._engine.info)
        self._output = Output.of(self.answer, self.request, prompt)
        self.phases.reach(Phase.MEASURED)
        self._start_if_ready()

    def _take_seat(self) -> None:
        self._become(GenerationState.PREFILLING)
        self._start_if_ready()
        self._tell()

    def _start_if_ready(self) -> None:
        waits = self.leader is not None and not self.leader.has_read
        begins = self.state is GenerationState.PREFILLING and self._stream is None and not waits
        if self._prepared is None or not begins:
            return
        try:
            self._stream = self._engine.start(self._prepared.spec, self._deliver)
        except ChatStreamError as error:
            self.fail(error)

    # ---- From the engine to the answer

    def _deliver(self, outcome: StreamOutcome) -> None:
        """Take what a turn gave. Never raises; called by the engine on the event loop."""
        if outcome.finished is not None:
            self._stream = None
            self._ticket.leave()
        if self.ended or self._output is None:
            return  # tokens after a stop string, or after a failure, are dropped
        if outcome.paused:
            self._become(GenerationState.PAUSED)
        elif outcome.tokens or self.usage.completion_tokens:
            self._become(GenerationState.DECODING)
        else:
            self._become(GenerationState.PREFILLING)
        before = len(self.answer)
        if self._output.take(outcome):
            self._let_go()
            self._tell()
        elif outcome.paused:
            self._tell()
        elif len(self.answer) > before:
            self.readers.hear_text()

    # ---- Every way out

    def fail(self, error: ChatStreamError) -> None:
        """End the request with an error, wherever it is. Nothing happens if it is over."""
        if self.ended:
            return
        self.answer.fail(error)
        self._let_go()
        self._tell()

    def close(self) -> None:
        """Nobody wants it any more: let go of whatever is still held. Safe to call again."""
        self.answer.cut()
        self._let_go()
        self._tell()

    def _let_go(self) -> None:
        """Give the seat back: now if the engine never had the stream, else when it lets go."""
        self._become(GenerationState.ENDED)
        if self._stream is not None:
            self._stream.cancel()
        else:
            self._ticket.leave()

    # ---- Readers

    def read(self, position: int = 0, *, bell: Bell | None = None) -> Reader:
        """A reader of the answer's events from a position on, also when it is over.

        Args:
            position: Events of the answer before the first that it reads.
            bell: Of whoever waits for several readers; by default it has its own.
        """
        reader = Reader(self, position, self._spacing, bell or Bell())
        if not self.ended:
            self.readers.add(reader)
        return reader

    def __aiter__(self) -> Reader:
        return self.read()

    def _tell(self) -> None:
        """Wake all readers. After the end there is nothing more to tell them."""
        self.readers.hear()
        if self.ended:
            self.readers.clear()

    # ---- What can be seen

    @property
    def ended(self) -> bool:
        """Whether the answer is over: complete, failed, or nobody wants it any more."""
        return self.answer.ended

    @property
    def has_read(self) -> bool:
        """Whether its prompt was read to the end, or will not be."""
        return self.state in (GenerationState.DECODING, GenerationState.ENDED)

    @property
    def error(self) -> ChatStreamError | None:
        """What ended it, if it failed."""
        return self.answer.error

    @property
    def finish_reason(self) -> FinishReason | None:
        """How the answer came to its end; None while it has not, or has failed."""
        return None if self.answer.finished is None else self.answer.finished.reason

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(0, 0) if self._output is None else self._output.usage

    def queued(self) -> Queued | None:
        """Place and expected wait at this moment; None when it does not wait."""
        position = self._ticket.position
        return None if position is None else Queued(position, self._ticket.eta_seconds)
