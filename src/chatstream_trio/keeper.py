"""Keeps an engine running: loads its model, and gives it a new runner when one is lost.

This module knows the engine; it knows no request, no seat and no HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from chatstream_trio.engine.face import Engine, RunnerFailed
from chatstream_trio.engine.messages import Lost
from chatstream_trio.errors import ChatStreamError, EngineFailed, ModelNotLoaded, one_line

logger = logging.getLogger(__name__)

FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 60.0
"""Seconds until a lost runner is replaced: twice as long each time, unless it finished turns."""


class Keeper:
    """The life of an engine, from its first load on.

    Args:
        engine: What is kept.
        model_id: What its model is called in messages.
        on_ready: Called whenever a runner is loaded.
        on_lost: Called whenever one is lost. Whoever has a seat keeps it.
    """

    def __init__(
        self,
        engine: Engine,
        model_id: str,
        *,
        on_ready: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._model_id = model_id
        self._on_ready = on_ready
        self._on_lost = on_lost
        self._settled = trio.Event()
        """Set once the first load is over, well or not."""
        self.failure: Exception | None = None
        """What ended the engine, or kept it from starting."""

    async def run(self, load_codec: Callable[[], Awaitable[object]]) -> None:
        """Load the codec, then the model, and run its turns until cancelled.

        Returns when the model cannot be loaded; :meth:`ready` says why.
        """
        try:
            await load_codec()
            backoff = FIRST_BACKOFF
            while True:
                turns = self._engine.statistics().turns
                try:
                    await self._engine.run(on_loaded=self._note_ready)
                except RunnerFailed as failed:
                    self._note_lost(failed.lost)
                if self._engine.statistics().turns > turns:
                    backoff = FIRST_BACKOFF
                await trio.sleep(backoff)
                backoff = min(2 * backoff, LONGEST_BACKOFF)
        except ChatStreamError as error:
            self.failure = error
        finally:
            self._settled.set()

    async def ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            ModelNotFound, ModelNotLoaded, ModelNotSupported: It cannot be.
        """
        await self._settled.wait()
        if self.failure is not None:
            raise self.failure

    def _note_ready(self) -> None:
        self.failure = None
        self._settled.set()
        self._on_ready()

    def _note_lost(self, lost: Lost) -> None:
        """Note that the runner is gone, and why.

        Raises:
            ChatStreamError: It never was there: the model cannot be loaded.
        """
        first = not self._settled.is_set()
        if first and lost.error is not None:
            raise lost.error
        what = f"{self._model_id!r} cannot be loaded" if first else "the engine was lost"
        logger.error("%s\n%s", what, lost.trace.rstrip())
        message = f"{what}: {lost.kind}: {one_line(lost.message)}"
        if first:
            raise ModelNotLoaded(message)
        self.failure = EngineFailed(message)
        self._on_lost()
