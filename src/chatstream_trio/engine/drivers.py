"""Who turns the crank of the turn loop: a thread of its own, or a task on the event loop.

A driver exchanges values with its engine (:mod:`.messages`) and shares nothing with it, so that one
may as well keep the turn loop in another process. It knows no streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from chatstream_trio.engine.messages import Command, Lost, Ready, Report, Stop, WorkerSpec
from chatstream_trio.engine.worker import Inbox, begin, run_worker

STOP_SECONDS = 5.0
"""How long an ended engine waits for the turn that runs, before it leaves its thread behind."""


class Driver(Protocol):
    """One runner's life: carries commands in, and its reports out."""

    abandoned: bool
    """Whether something was left behind that would not end: the process must not wait for it."""

    def put(self, command: Command) -> None:
        """Carry a command in. Never blocks."""
        ...

    async def drive(self, spec: WorkerSpec, report: Callable[[Report], None]) -> None:
        """Load the runner and run turns, until they end or this is cancelled.

        Args:
            spec: What to load.
            report: Called on the event loop, in the order in which things came to pass. May not
                raise. When this returns, it has heard everything.
        """
        ...


class ThreadDriver:
    """The loop runs in a thread of its own.

    A crossing costs about 100 µs, so there is one per turn and not one per token.
    """

    def __init__(self) -> None:
        self._inbox = Inbox()
        self._begun = False
        """Whether the thread has loaded its runner, and so may be in a turn."""
        self.abandoned = False
        self.put = self._inbox.put

    async def drive(self, spec: WorkerSpec, report: Callable[[Report], None]) -> None:
        token = trio.lowlevel.current_trio_token()

        def hear(said: Report) -> None:
            self._begun |= isinstance(said, Ready)
            report(said)

        def post(said: Report) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(hear, said)

        # A thread does not hear a cancellation. So this scope does not either, until the task
        # beside it has asked the thread to stop and the thread has had its time to do so.
        thread = trio.CancelScope(shield=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_cancelled, thread)
            with thread:
                await trio.to_thread.run_sync(
                    run_worker,
                    spec,
                    self._inbox,
                    post,
                    thread_name="chatstream-engine",
                    abandon_on_cancel=True,
                    limiter=trio.CapacityLimiter(1),
                )
            self.abandoned = thread.cancelled_caught
            nursery.cancel_scope.cancel()

    async def _stop_when_cancelled(self, thread: trio.CancelScope) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.put(Stop())
            # Loading cannot be asked to stop, and has nothing to lose.
            grace = STOP_SECONDS if self._begun else 0.0
            thread.deadline = trio.current_time() + grace


class TaskDriver:
    """The loop runs in a task: its time is the event loop's, which may be virtual."""

    def __init__(self) -> None:
        self._commands: list[Command] = []
        self._arrived = trio.Event()
        self.abandoned = False

    def put(self, command: Command) -> None:
        self._commands.append(command)
        self._arrived.set()

    async def drive(self, spec: WorkerSpec, report: Callable[[Report], None]) -> None:
        try:
            loop = begin(spec, report, trio.current_time)
            timeout = next(loop)
            while True:
                await trio.lowlevel.checkpoint()
                with trio.move_on_after(math.inf if timeout is None else timeout):
                    await self._arrived.wait()
                self._arrived = trio.Event()
                commands, self._commands = self._commands, []
                timeout = loop.send(commands)
        except StopIteration:
            return
        except Exception as error:
            report(Lost.of(error))
