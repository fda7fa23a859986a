"""A driver that keeps the turn loop in a child process: the proof that drivers exchange values.

A test's, and no feature: what a fleet needs besides is in a driver of its own.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import trio

from chatstream_trio.engine.messages import Command, Lost, Report, Stop, WorkerSpec
from chatstream_trio.engine.worker import Inbox, run_worker

SPAWN = multiprocessing.get_context("spawn")
GRACE = 5.0


def child(spec: WorkerSpec, pipe: Connection) -> None:
    """The child's main: commands come in by a thread, reports go out from the turn loop."""
    inbox = Inbox()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                inbox.put(pipe.recv())
        inbox.put(Stop())

    threading.Thread(target=listen, daemon=True).start()
    with suppress(OSError):
        run_worker(spec, inbox, pipe.send)


class ChildDriver:
    """One life of a child."""

    abandoned = False
    pid: int | None = None

    def put(self, command: Command) -> None:
        """Through the pipe; one that is gone will say so itself."""
        with suppress(OSError):
            self._pipe.send(command)

    async def drive(self, spec: WorkerSpec, report: Callable[[Report], None]) -> None:
        """Spawn, hear everything, and leave nothing behind."""
        self._pipe, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=child, args=(spec, theirs), daemon=True)
        process.start()
        self.pid = process.pid
        theirs.close()
        try:
            while process.is_alive() or self._pipe.poll():
                try:
                    said = await trio.to_thread.run_sync(self._pipe.recv, abandon_on_cancel=True)
                except (EOFError, OSError):
                    report(Lost("ChildGone", "the child is gone"))
                    return
                report(said)
                if isinstance(said, Lost):
                    return
        finally:
            self.put(Stop())
            process.join(GRACE)
            process.kill()
            process.join()
            self._pipe.close()
