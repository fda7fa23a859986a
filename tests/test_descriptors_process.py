"""A process that may open few files: it has fewer connections, says so, and lives on."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest
import trio
import trio.testing

from chatstream_trio.web.transport.accepting import PAUSE, Acceptor
from test_process import COMMAND, GUARD, Server

LIMITED = "at most {} connections"


@contextlib.contextmanager
def limited(command: list[str], soft: int, hard: int) -> Iterator[Server]:
    """A process that may open so many files."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=limit) as process:
        watchdog = threading.Timer(GUARD, process.kill)
        watchdog.start()
        try:
            yield Server(process)
        finally:
            watchdog.cancel()
            process.kill()


@contextlib.contextmanager
def crowd(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many idle connections."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=GUARD))
            for _ in range(count)
        ]


def ask(port: int) -> bytes:
    """The first bytes of the answer about its health, or none."""
    with socket.create_connection(("127.0.0.1", port), timeout=GUARD) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return sock.recv(12)
        return b""


def until(condition: Callable[[], object]) -> None:
    """The process is killed if it takes too long, and then the condition raises."""
    while not condition():
        pass


def serve_command(*flags: str) -> list[str]:
    return [*COMMAND, "serve", "--port", "0", "--model", "scripted", *flags]


@pytest.mark.parametrize(
    ("soft", "hard", "flags", "room"),
    [
        (200, 200, [], 100),
        (200, 20_000, ["--max-connections", "300"], 300),
        (700, 700, [], 444),
        (400, 700, [], 444),
    ],
)
def test_few_descriptors(soft: int, hard: int, flags: list[str], room: int) -> None:
    """What fits is served, what is over the cap is told so, and afterwards all is well."""
    with limited(serve_command(*flags), soft, hard) as server:
        port = int(server.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)$")[1])
        lowered = LIMITED.format(room) in "".join(server.said)
        assert lowered == ("--max-connections" not in flags)
        assert len(server.said) == 1 + lowered
        with crowd(port, room - 1):
            until(lambda: ask(port) == b"HTTP/1.1 200")
            with crowd(port, 200):  # the first few of those over the cap are told so
                until(lambda: ask(port) == b"HTTP/1.1 503")
        until(lambda: ask(port) == b"HTTP/1.1 200")
        assert httpx.get(f"http://127.0.0.1:{port}/status").json()["status"] == "ok"
        assert server.end() == 0
        assert len(server.said) == 1 + lowered


OUT_OF_FILES = """
import logging, trio
from chatstream_trio import ServerLimits, bind, serve
logging.basicConfig(format="%(levelname)s %(message)s")
async def app(scope, receive, send):
    assert scope["type"] == "http"  # it knows of no lifespan
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
async def main():
    sockets = bind("127.0.0.1", 0)
    print("PORT", sockets[0].getsockname()[1], file=__import__("sys").stderr, flush=True)
    await serve(app, sockets, ServerLimits(), shutdown_trigger=trio.sleep_forever)
trio.run(main)
"""


def test_out_of_descriptors_is_a_quiet_pause() -> None:
    """A server of somebody's own, whose cap does not fit: one line, and it goes on."""
    with limited([sys.executable, "-c", OUT_OF_FILES], 64, 64) as server:
        port = int(server.wait_for(r"PORT (\d+)$")[1])
        with crowd(port, 100):
            server.wait_for("WARNING .*Too many open files")
        until(lambda: ask(port) == b"HTTP/1.1 200")
        server.process.terminate()
        _, rest = server.process.communicate(timeout=GUARD)
        assert sum("connection" in line for line in server.said) == 1
        assert "Traceback" not in "".join(server.said)
        assert rest == ""


class Listener(trio.abc.Listener[trio.SocketStream]):
    """It fails to accept in given ways, and in the end waits for ever."""

    def __init__(self, *codes: int | None) -> None:
        self.codes = list(codes)

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()

    async def accept(self) -> trio.SocketStream:
        await trio.lowlevel.checkpoint()
        if not self.codes:
            await trio.sleep_forever()
        if code := self.codes.pop(0):
            raise OSError(code, os.strerror(code))
        return trio.SocketStream(trio.socket.socket())


async def accepted(listener: Listener) -> int:
    """How many it accepted before it waited for ever."""
    handled = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal handled
        handled += 1
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        acceptor = Acceptor(handle, nursery)
        nursery.start_soon(acceptor.run, listener)
        while listener.codes:
            await trio.sleep(PAUSE)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return handled


@pytest.mark.parametrize(
    "code",
    [
        errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.ECONNABORTED,
        errno.EPROTO, errno.EIO, errno.EINTR, errno.EINVAL,
    ],
)  # fmt: skip
async def test_whatever_keeps_it_from_accepting(
    code: int, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits and tries again; an episode is one line in the log, without a traceback."""
    listener = Listener(None, *[code] * 30, None, code, None, *[code] * 30, None)
    assert await accepted(listener) == 4
    (line,) = caplog.records
    assert (line.levelno, line.exc_info) == (logging.WARNING, None)
    assert os.strerror(code) in line.getMessage()
    assert trio.current_time() == pytest.approx(61 * PAUSE, abs=2 * PAUSE)


async def test_another_episode_is_another_line(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """When it has gone well for a while."""
    acceptor: list[Acceptor] = []
    async with trio.open_nursery() as nursery:
        acceptor.append(Acceptor(trio.aclose_forcefully, nursery))
        for _ in range(2):
            await trio.sleep(60)
            nursery.start_soon(acceptor[0].run, Listener(errno.EMFILE, errno.EMFILE))
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert len(caplog.records) == 2


async def test_a_listener_that_is_closed_is_a_mistake() -> None:
    """To try again would be of no use."""
    (sock,) = [trio.socket.socket()]
    await sock.bind(("127.0.0.1", 0))
    sock.listen()
    listener = trio.SocketListener(sock)
    sock.close()
    async with trio.open_nursery() as nursery:
        with pytest.raises(trio.ClosedResourceError):
            await Acceptor(trio.aclose_forcefully, nursery).run(listener)
