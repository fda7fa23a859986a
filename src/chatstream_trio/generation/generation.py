"""One request, from its ticket to its last event: prompt -> seat -> tokens -> text -> events.

Everything here but the waiting for an event is synchronous. The dealing task says ``seated``, the
engine delivers outcomes, the owner of the request iterates and closes; none of them waits for
another, so a reader who has stopped reading holds up nobody, and a stop string is found when its
last token arrives and not when somebody looks.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from enum import Enum
from math import inf

import trio
from attrs import field, frozen

from chatstream_trio.admission.admission import Ticket
from chatstream_trio.engine.face import Engine, Handle
from chatstream_trio.engine.streams import Ending, StreamOutcome, StreamSpec
from chatstream_trio.errors import (
    ChatStreamError,
    ContextTooLong,
    EngineFailed,
    StreamFault,
)
from chatstream_trio.events import (
    Event,
    Finished,
    FinishReason,
    Queued,
    Silence,
    Started,
    Text,
    Usage,
)
from chatstream_trio.generation.phases import Phase, Phases
from chatstream_trio.request import ChatRequest, Timeouts, resolve
from chatstream_trio.text.codec import Prompt
from chatstream_trio.text.stops import StopFinder

logger = logging.getLogger(__name__)


class GenerationState(Enum):
    """Where a request is; the values are those of ``/status``."""

    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    PAUSED = "paused"
    """It had to give its KV memory back, keeps its seat, and goes on later."""
    ENDED = "ended"


@frozen
class GenerationStatus:
    """What :meth:`Generation.status` returns."""

    id: str
    key: str = field(repr=False)
    """Whose request it is; a secret may be part of it."""
    state: GenerationState
    position: int | None
    """Place in the line; None when it does not wait."""
    prompt_tokens: int | None
    """None until the prompt was measured."""
    completion_tokens: int
    age_seconds: float


class Generation:
    """A live request, and the async iterator of its events.

    Iterating raises the error that ended the request, after the text that came before it:
    :class:`StreamFault`, :class:`StreamCancelled`, :class:`EngineFailed`, :class:`Draining`.
    It is safe to cancel: an event is taken only when it is returned.

    :class:`~chatstream_trio.service.ChatStream` makes these; use its ``generate``.
    """

    def __init__(
        self,
        request: ChatRequest,
        *,
        id: str,
        key: str,
        engine: Engine,
        on_change: Callable[[], None],
        spacing: Callable[[], float],
    ) -> None:
        """``spacing``: seconds that should lie between two pieces of text, as of now."""
        self._on_change = on_change
        self._spacing = spacing
        self._text_due = -inf
        self.id = id
        self.key = key
        self.request = request
        self._engine = engine
        self._ticket: Ticket | None = None
        self._prompt: Prompt | None = None
        self._stop_tokens: frozenset[int] = frozenset()
        self._stream: Handle | None = None
        """The engine's, until the engine has let go of it."""
        self._stops = StopFinder(request.stop)
        self._max_tokens = 0
        self._completion_tokens = 0
        self._cached_tokens = 0
        self.phases = Phases()
        """When it came to what."""
        # What the reader has not taken yet:
        self._position_told: int | None = None
        self._seated = False
        self._seat_told = False
        self._texts: list[str] = []
        self._finish: FinishReason | None = None
        self._finish_told = False
        self.error: ChatStreamError | None = None
        self._closed = False
        self._news = trio.Event()
        self.tells_moves = True
        """Whether a change of place in the line is an event. A reader who wants none for now turns
        it off, and is not woken: in a full room everybody moves whenever a seat gets free."""
        self.tells_silence = False
        """Whether it is an event (:class:`Silence`) that nothing has happened for five seconds."""
        self._heard_at = self.phases.arrived
        self._silent = False

    # ---- From the waiting room to the engine

    def take_ticket(self, enter: Callable[..., Ticket]) -> None:
        """Enter the line. Raises what ``enter`` (:meth:`Admission.enter`) raises."""
        self._ticket = enter(self.key, on_seat=self._take_seat, on_move=self._move)

    def prepare(self, prompt: Prompt, stop_tokens: frozenset[int] = frozenset()) -> None:
        """Take the measured prompt; it may begin as soon as it has a seat.

        Args:
            prompt: What the model reads.
            stop_tokens: Tokens that end the answer, besides those that the request names.

        Raises:
            ContextTooLong: It does not fit, alone or with ``max_tokens``.
        """
        room = self._engine.info.max_model_len - len(prompt.tokens)
        asked = self.request.max_tokens
        if room < 1 or (asked is not None and asked > room):
            wanted = "" if room < 1 else f" and max_tokens is {asked}"
            raise ContextTooLong(
                f"the model's maximum context length is {self._engine.info.max_model_len} tokens; "
                f"the prompt has {len(prompt.tokens)}{wanted}",
                param="messages" if room < 1 else "max_tokens",
            )
        self._max_tokens = room if asked is None else asked
        self._prompt = prompt
        self._stop_tokens = stop_tokens
        self.phases.reach(Phase.MEASURED)
        self._start_if_ready()

    def _move(self) -> None:
        if self.tells_moves:
            self._tell()

    def _take_seat(self) -> None:
        self._seated = True
        self.phases.reach(Phase.SEATED)
        self._start_if_ready()
        self._tell()

    def _start_if_ready(self) -> None:
        if not self._seated or self._prompt is None or self.ended:
            return
        try:
            self._stream = self._engine.start(self._spec(), self._deliver)
        except ChatStreamError as error:
            self.fail(error)

    def _spec(self) -> StreamSpec:
        assert self._prompt is not None
        info, request = self._engine.info, self.request
        eos = frozenset() if request.ignore_eos else info.eos_token_ids
        return StreamSpec(
            0,
            self._prompt.tokens,
            self._max_tokens,
            resolve(request.sampling, info.sampling, seed=secrets.randbits(63)),
            eos | request.stop_token_ids | self._stop_tokens,
        )

    # ---- From the engine to the reader

    def _deliver(self, outcome: StreamOutcome) -> None:
        """Take what a turn gave. Never raises; called by the engine on the event loop."""
        if outcome.finished is not None:
            self._stream = None
            self._leave()
        if self.ended:
            return  # tokens after a stop string, or after a failure, are dropped
        try:
            self._take_tokens(outcome)
        except Exception:
            logger.exception("%s: reading its tokens failed", self.id)
            self.fail(StreamFault("the answer could not be decoded"))
        if self.ended or self.phases.paused or (self._texts and self._is_due()):
            self._tell()

    def _is_due(self) -> bool:
        """Whether the reader should be woken for text now; if not, a later turn does it.

        No clock wakes anybody for that: a stream that says nothing more ends, fails or pauses.
        """
        now, spacing = trio.current_time(), self._spacing()
        if now < self._text_due:
            return False
        self._text_due = max(self._text_due, now - spacing) + spacing
        return True

    def _take_tokens(self, outcome: StreamOutcome) -> None:
        assert self._prompt is not None
        self._cached_tokens = max(self._cached_tokens, outcome.cached_tokens)
        if self.phases.paused != outcome.paused:
            (self.phases.pause if outcome.paused else self.phases.resume)()
            self._on_change()
        for token in outcome.tokens:
            self._completion_tokens += 1
            if self._completion_tokens == 1:
                self.phases.reach(Phase.FIRST_TOKEN)
                self._on_change()
            self._emit(self._prompt.decoder.push(token))
            if self._stops.stopped:
                return self._end_answer(FinishReason.STOP)
        match outcome.finished:
            case None:
                return None
            case Ending.STOP | Ending.LENGTH as ending:
                self._emit(self._prompt.decoder.flush())
                self._texts.append(self._stops.flush())
                stopped = self._stops.stopped or ending is Ending.STOP
                return self._end_answer(FinishReason.STOP if stopped else FinishReason.LENGTH)
            case Ending.LOST:
                return self.fail(EngineFailed(outcome.fault or "the engine has ended"))
            case _:
                return self.fail(StreamFault(f"this stream failed: {outcome.fault}"))

    def _emit(self, text: str) -> None:
        if text and (ready := self._stops.push(text)):
            self._texts.append(ready)

    def _end_answer(self, reason: FinishReason) -> None:
        self._finish = reason
        self._let_go()

    # ---- Every way out

    def fail(self, error: ChatStreamError) -> None:
        """End the request with an error, wherever it is. Nothing happens if it is over."""
        if self.ended:
            return
        self.error = error
        self._let_go()
        self._tell()

    def close(self) -> None:
        """The reader is gone: let go of whatever is still held. Safe to call again."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        """Give the seat back: now if the engine never had the stream, else when it lets go."""
        self.phases.reach(Phase.ENDED)
        if self._stream is not None:
            self._stream.cancel()
        else:
            self._leave()

    def _leave(self) -> None:
        if self._ticket is not None:
            self._ticket.leave()

    async def keep_deadlines(self, timeouts: Timeouts) -> None:
        """Fail the request when one of its phases takes too long. Returns when it is over."""
        await self.phases.keep(timeouts, self.fail)

    # ---- The reader's side

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint_if_cancelled()
        while (event := self._next()) is None:
            self._news = trio.Event()
            await self._news.wait()
        self._heard_at = trio.current_time()
        self._silent = False
        return event

    def _tell(self) -> None:
        self._news.set()

    def tell_silence(self, since: float) -> None:
        """Wake a reader who wants to know that there was no event ``since`` that time."""
        if self.tells_silence and self._heard_at <= since:
            self._silent = True
            self._tell()

    def _next(self) -> Event | None:
        if not self._seat_told:
            told = self._position_told
            if self.tells_moves and (queued := self.take_position()) and queued.position != told:
                return queued
            if self._seated:
                self._seat_told = True
                return Started()
        if text := "".join(self._texts):
            self._texts.clear()
            return Text(text)
        if self.error is not None:
            raise self.error
        if self._finish is None and not self._closed:
            return Silence() if self._silent else None
        if self._finish is None or self._finish_told:
            raise StopAsyncIteration
        self._finish_told = True
        return Finished(self._finish, self.usage)

    def take_position(self) -> Queued | None:
        """:meth:`queued`, which then counts as told: the next event of this kind is of a change."""
        queued = self.queued()
        self._position_told = None if queued is None else queued.position
        return queued

    # ---- What can be seen

    @property
    def ended(self) -> bool:
        """Whether the answer is over: complete, failed, or nobody wants it any more."""
        return self._closed or self._finish is not None or self.error is not None

    @property
    def finish_reason(self) -> FinishReason | None:
        """How the answer came to its end; None while it has not, or has failed."""
        return self._finish

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        prompt_tokens = len(self._prompt.tokens) if self._prompt else 0
        return Usage(prompt_tokens, self._completion_tokens, self._cached_tokens)

    def queued(self) -> Queued | None:
        """Place and expected wait at this moment; None when it does not wait."""
        position = None if self._ticket is None else self._ticket.position
        if self._ticket is None or position is None:
            return None
        return Queued(position, self._ticket.eta_seconds)

    @property
    def state(self) -> GenerationState:
        """Where the request is."""
        if self.ended:
            return GenerationState.ENDED
        if not self._seated:
            return GenerationState.WAITING
        if self.phases.paused:
            return GenerationState.PAUSED
        return GenerationState.DECODING if self._completion_tokens else GenerationState.PREFILLING

    def status(self) -> GenerationStatus:
        """The state of the request at this moment."""
        queued = self.queued()
        return GenerationStatus(
            id=self.id,
            key=self.key,
            state=self.state,
            position=queued.position if queued else None,
            prompt_tokens=len(self._prompt.tokens) if self._prompt else None,
            completion_tokens=self._completion_tokens,
            age_seconds=trio.current_time() - self.phases.arrived,
        )
