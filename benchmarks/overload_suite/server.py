"""The server under test as a process: start it, look at it from outside, end it.

What it holds is seen in two ways: ``GET /status`` says what it believes, ``/proc`` what is true.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from attrs import asdict, define, field, frozen
from benchmarks.overload_suite.http import get

from chatstream_trio.bench.http import Address, ConnectionEndedError

SOURCE = Path(__file__).resolve().parents[2] / "src"
START_SECONDS = 120.0
END_SECONDS = 60.0
LOOK_SECONDS = 0.1
QUIET_LOOKS = 30
SETTLE_LOOKS = 200
"""How long (20 s) after a storm something may still be held before it is called a leak."""
NO_ANSWER = "no answer"
IDLE_THREAD = "Trio thread "
_LOOK_FAILED = (OSError, ConnectionEndedError, trio.TooSlowError)
_EXPECTED_WORDS = re.compile(r"^Draining \d+ requests|^INFO ")


class ServerEndedError(Exception):
    """The server did not start; the text is its last words."""


@frozen
class Holdings:
    """What a server holds at one moment; None where it cannot be seen."""

    active: int | None = None
    waiting: int | None = None
    kv_rows: int | None = None
    tasks: int | None = None
    threads: int | None = None
    """Those that work; Trio keeps idle ones for 10 s, which are nobody's."""
    sockets: int | None = None
    resident_mib: float | None = None

    def more_than(self, before: Holdings) -> dict[str, int]:
        """What is held now and was not before, memory aside."""
        more = {}
        for name, value in asdict(self).items():
            old = getattr(before, name)
            if name != "resident_mib" and value is not None and old is not None and value > old:
                more[name] = value - old
        return more


@define
class Server:
    """A server that answers at ``address``; ``process`` is None for one that is not ours."""

    address: Address
    process: trio.Process | None = None
    pid: int | None = None
    """Where ``/proc`` shows it; None where that is not known."""
    said: list[str] = field(factory=list)
    """Its stderr, line by line."""

    @property
    def unexpected(self) -> list[str]:
        """What it said since it listened, besides news: warnings, tracebacks."""
        lines = "".join(self.said).partition("Listening on ")[2].splitlines()[1:]
        return [line for line in lines if line.strip() and not _EXPECTED_WORDS.match(line)]

    async def status(self) -> dict[str, Any] | None:
        """``GET /status``; None where there is none."""
        try:
            code, body = await get(self.address, "/status")
        except _LOOK_FAILED:
            return None
        return body if code == 200 and isinstance(body, dict) and "active" in body else None

    async def health(self) -> str:
        """What ``GET /health`` says in a word or two, such as ``200 ok``."""
        try:
            code, body = await get(self.address, "/health")
        except _LOOK_FAILED:
            return NO_ANSWER
        return f"{code} {body.get('status', '')}" if isinstance(body, dict) else str(code)

    async def holdings(self) -> Holdings:
        """What it holds now."""
        status = await self.status() or {}
        names = ("active", "waiting", "kv_rows", "tasks")
        return Holdings(**{name: status.get(name) for name in names}, **self._seen_from_outside())

    async def settle(self, before: Holdings) -> Holdings:
        """What it holds once it holds no more than before, or when patience is over."""
        for _ in range(SETTLE_LOOKS):
            now = await self.holdings()
            if not now.more_than(before):
                break
            await trio.sleep(LOOK_SECONDS)
        return now

    async def quiet(self) -> Holdings:
        """What it holds once that has stopped getting less."""
        before = await self.holdings()
        for _ in range(QUIET_LOOKS):
            await trio.sleep(LOOK_SECONDS)
            now = await self.holdings()
            if not before.more_than(now):
                break
            before = now
        return before

    def resident_mib(self) -> float | None:
        """Its resident memory."""
        memory: float | None = self._seen_from_outside().get("resident_mib")
        return memory

    def cpu_seconds(self) -> float | None:
        """Processor time that it has used so far."""
        if self.pid is None:
            return None
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return None
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def terminate(self) -> None:
        """SIGTERM."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def _seen_from_outside(self) -> dict[str, Any]:
        if self.pid is None:
            return {}
        proc = Path("/proc") / str(self.pid)
        try:
            lines = (proc / "status").read_text().splitlines()
            fields = dict(line.split(":", 1) for line in lines)
            return {
                "threads": self._working_threads(proc),
                "resident_mib": int(fields["VmRSS"].split()[0]) / 1024,
                "sockets": sum(link.startswith("socket:") for link in _links(proc / "fd")),
            }
        except (OSError, KeyError, ValueError):
            return {}

    def _working_threads(self, proc: Path) -> int | None:
        if self.process is None:  # which threads of somebody else's server idle is not known
            return None
        return sum(not name.startswith(IDLE_THREAD) for name in _threads(proc))


def _threads(proc: Path) -> Iterator[str]:
    for entry in os.scandir(proc / "task"):
        try:
            yield Path(entry.path, "comm").read_text()
        except OSError:
            continue  # ended in the meantime


def _links(folder: Path) -> Iterator[str]:
    for entry in os.scandir(folder):
        try:
            yield os.readlink(entry.path)
        except OSError:
            continue  # closed in the meantime


@asynccontextmanager
async def running(*flags: str) -> AsyncIterator[Server]:
    """A server on a free port with these flags; it is ended, and its words kept, in the end.

    Raises:
        ServerEndedError: It did not start.
    """
    command = [sys.executable, "-m", "chatstream_trio", "serve", "--port", "0", *flags]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, env=_environment())
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        found, listening = trio.open_memory_channel[str](1)
        nursery.start_soon(_listen_to, process, said, found)
        try:
            with trio.fail_after(START_SECONDS):
                url = await _first(process, listening, said)
            yield Server(Address.of(f"{url}/v1"), process, process.pid, said)
        finally:
            with trio.CancelScope(shield=True):
                await end(process)
        nursery.cancel_scope.deadline = trio.current_time() + 1  # its last words are in the pipe


async def _first(
    process: trio.Process, listening: trio.MemoryReceiveChannel[str], said: list[str]
) -> str:
    try:
        return await listening.receive()
    except trio.EndOfChannel:
        code = await process.wait()
        words = "".join(said).strip()
        raise ServerEndedError(words or f"no words, exit code {code}") from None


async def _listen_to(
    process: trio.Process, said: list[str], found: trio.MemorySendChannel[str]
) -> None:
    assert process.stderr is not None
    with found:
        text = ""
        async for data in process.stderr:
            text += data.decode("utf-8", "replace")
            said[:] = [text]
            if match := re.search(r"^Listening on (http://\S+)$", text, re.MULTILINE):
                with suppress(trio.WouldBlock):
                    found.send_nowait(match[1])


async def end(process: trio.Process) -> None:
    """SIGTERM, then patience, then SIGKILL."""
    if process.poll() is not None:
        return
    process.terminate()
    with trio.move_on_after(END_SECONDS):
        await process.wait()
        return
    process.kill()
    await process.wait()


def _environment() -> dict[str, str]:
    path = [str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
