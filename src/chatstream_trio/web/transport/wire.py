"""The socket under a connection: it writes with patience, and notices a peer that fell silent.

TLS, where there is any, lies on top (see :mod:`chatstream_trio.web.transport.tls`), so that what
holds here holds for both. This module knows no protocol.
"""

import array
import errno
import math
import select
import socket
import struct
from contextlib import suppress
from typing import NoReturn

import trio

__all__ = ["GONE", "Stalled", "Wire", "notice_silence", "turn_away"]

GONE = (trio.ClosedResourceError, trio.BrokenResourceError)

_CHUNK = 2**16
# A peer without power or network says nothing. 15 s of silence, then 3 questions 5 s apart: it is
# given up after half a minute, and no answer to a question costs a waiting client its place.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPALIVE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Stalled(trio.BrokenResourceError):
    """The peer takes nothing, or answers nothing, for too long."""


class Wire(trio.abc.HalfCloseableStream):
    """A socket as a stream whose writes end when they make no progress for ``patience`` seconds.

    A write is never cancelled: bytes that were counted as sent, or encrypted, must leave whole, or
    what follows them is garbage. It ends with :exc:`Stalled`, or when :meth:`close` is called.

    The socket is taken over from ``sock``, which is of no use from then on.
    """

    def __init__(self, sock: trio.socket.SocketType, patience: float) -> None:
        # Said and not asked for: some systems do not tell of a socket whose peer has reset it.
        kind = (sock.family, sock.type, sock.proto)
        self._plain = socket.socket(*kind, fileno=sock.detach())
        self.socket = trio.socket.from_stdlib_socket(self._plain)
        self.patience = patience

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the system takes at once, and return how many bytes that were, maybe none."""
        try:
            return self._plain.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            _give_up(error)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, however long it takes while it goes on.

        It is a checkpoint only if it has to wait: for a small piece of a stream, which the system
        takes at once, scopes and turns of the event loop would cost more than the sending.
        """
        if (sent := self.send_nowait(data)) == len(data):
            return
        with trio.CancelScope(shield=True), memoryview(data) as left:
            while sent < len(left):
                sent += await self._send_some(left[sent:])

    async def _send_some(self, data: memoryview) -> int:
        """Send what there is room for; give up when the peer takes nothing.

        The system says that there is room only once there is plenty, which may be megabytes after
        a slow reader has begun to read; so what it still has to deliver is looked at as well.
        """
        deadline = trio.current_time() + self.patience
        queued: float = math.inf
        while trio.current_time() < deadline:
            with trio.move_on_at(min(deadline, trio.current_time() + self.patience / 4)):
                try:
                    return await self.socket.send(data)
                except OSError as error:
                    _give_up(error)
            before, queued = queued, _undelivered(self.socket)
            if queued < before < math.inf:
                deadline = trio.current_time() + self.patience
        raise Stalled("nothing was read for too long")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come; empty at the end."""
        try:
            return await self.socket.recv(max_bytes or _CHUNK)
        except OSError as error:
            _give_up(error)

    def is_readable(self) -> bool:
        """Whether something has come, if only the end, that nobody has read yet."""
        fd = self.socket.fileno()
        if fd == -1 or not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        await trio.lowlevel.wait_writable(self.socket)

    async def send_eof(self) -> None:
        """Close our side."""
        self.hang_up()
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close both sides."""
        self.close()
        await trio.lowlevel.checkpoint()

    def hang_up(self) -> None:
        """Close our side, unless the connection is gone."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        """Close both sides now, which ends whatever waits here.

        With ``reset`` the kernel forgets what the peer did not read, instead of keeping it for
        minutes.
        """
        if reset:
            with suppress(OSError):
                on = struct.pack("ii", 1, 0)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on)
        self.socket.close()


def _undelivered(sock: trio.socket.SocketType) -> int:
    """How many bytes the system holds for the peer, where it tells."""
    count = array.array("i", [0])
    with suppress(ImportError, AttributeError, OSError):
        import fcntl
        import termios

        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    return count[0]


def _give_up(error: OSError) -> NoReturn:
    if error.errno == errno.ETIMEDOUT:  # the kernel's own patience, see notice_silence()
        raise Stalled("the peer has fallen silent") from error
    raise trio.BrokenResourceError("the peer is gone") from error


async def turn_away(wire: Wire, answer: bytes, patience: float) -> None:
    """Send a last answer, and wait a little for the peer to have read it."""
    wire.patience = patience
    with suppress(*GONE), trio.move_on_after(patience):
        await wire.send_all(answer)
        await drain(wire)


async def drain(wire: Wire) -> None:
    """Close our side and drop what comes until the peer has closed its own.

    To close at once, with bytes unread, would reset the connection and destroy the answer.
    """
    wire.hang_up()
    with suppress(*GONE):
        while await wire.receive_some():
            pass


def notice_silence(listener: socket.socket, write_timeout: float) -> None:
    """Let the kernel end connections whose peer vanished without a word, such as by power loss.

    Set on a listening socket, as connections inherit it. Where data is unanswered, Linux gives up
    after ``write_timeout``; elsewhere it may take minutes.
    """
    options = {"SO_KEEPALIVE": 1, **_KEEPALIVE}
    if math.isfinite(write_timeout):
        options["TCP_USER_TIMEOUT"] = min(2**31 - 1, max(1, int(write_timeout * 1000)))
    for name, value in options.items():
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        with suppress(AttributeError, OSError):  # not on this system, or no TCP
            listener.setsockopt(level, getattr(socket, name), value)
