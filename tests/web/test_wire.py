"""The socket under a connection: what counts as progress, and what ends a write."""

import errno
import socket
import sys
from contextlib import closing

import pytest
import trio
import trio.testing

from chatstream_trio.web.transport.wire import GONE, Stalled, Wire, _undelivered
from conftest import GUARD

pytestmark = pytest.mark.trio


async def pair() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    """Two ends of a TCP connection; the first may have megabytes on their way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        theirs.connect(listener.getsockname())
        ours, _ = listener.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**22)
    ours.setblocking(False)
    theirs.setblocking(False)
    return trio.socket.from_stdlib_socket(ours), trio.socket.from_stdlib_socket(theirs)


async def test_what_the_system_delivers_is_progress(monkeypatch, autojump_clock):
    """While it has no room for more, but less and less to deliver, the write is not given up."""
    ours, theirs = await pair()
    left = iter(range(100, 0, -1))
    monkeypatch.setattr("chatstream_trio.web.transport.wire._undelivered", lambda _: next(left, 0))
    with closing(Wire(ours, 1.0)) as wire, theirs:
        with pytest.raises(Stalled):
            await wire.send_all(b"x" * 2**24)  # nobody reads
        assert 25 < trio.current_time() < 30  # a look every quarter of a second


@pytest.mark.skipif(sys.platform != "linux", reason="not every system tells")
async def test_the_system_tells_what_it_has_to_deliver():
    """It is what the peer has not taken."""
    ours, theirs = await pair()
    with ours, theirs:
        assert _undelivered(ours) == 0
        with trio.move_on_after(0.2):
            while True:
                await ours.send(b"x" * 2**16)
        assert _undelivered(ours) > 0


@pytest.mark.parametrize("read", [0, 2**15])
async def test_a_reader_that_stops_is_given_up(read):
    """Whether it has begun or not: the time counts from the last byte that it took."""
    ours, theirs = await pair()
    wire = Wire(ours, 0.3)

    async def write_and_read(left: int) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send_all, b"x" * 2**24)
            while left > 0:
                left -= len(await theirs.recv(2**12))

    with closing(wire), theirs, trio.fail_after(GUARD), pytest.raises(ExceptionGroup) as caught:
        await write_and_read(read)
    assert caught.group_contains(Stalled)


async def test_a_write_hears_no_cancel_but_a_close():
    """What is cancelled goes on writing, or the bytes of others would be torn; a close ends it."""
    ours, theirs = await pair()
    wire = Wire(ours, 600)
    ended = trio.Event()

    async def write() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(trio.ClosedResourceError):
                await wire.send_all(b"x" * 2**24)
        ended.set()

    with closing(wire), theirs, trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert not ended.is_set()
            wire.close()
            await ended.wait()


async def test_a_small_write_waits_for_nothing():
    """What the system takes at once leaves at once: no turn of the event loop, no scope."""
    ours, theirs = await pair()
    with closing(Wire(ours, 600)) as wire, theirs:
        with trio.testing.assert_no_checkpoints():
            await wire.send_all(b"small")
        assert await theirs.recv(100) == b"small"


async def test_a_write_larger_than_what_the_system_takes_arrives_in_order():
    """What left at once is followed by the rest, and by nothing twice."""
    ours, theirs = await pair()
    data = b"".join(number.to_bytes(4, "big") for number in range(2**21))
    came = bytearray()
    with closing(Wire(ours, 600)) as wire, theirs, trio.fail_after(GUARD):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send_all, data)
            while len(came) < len(data):
                came += await theirs.recv(2**16)
    assert came == data


async def test_a_wire_that_is_closed_takes_nothing():
    """A write to it ends like any write whose peer is gone."""
    ours, theirs = await pair()
    with closing(Wire(ours, 600)) as wire, theirs:
        wire.close()
        with pytest.raises(GONE):
            await wire.send_all(b"late")


async def test_a_socket_that_cannot_say_what_it_is_is_taken_over(monkeypatch):
    """As on macOS when the peer has reset it: who resets early must not end the server."""

    class Reset(socket.socket):
        def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
            if -1 in (family, type, proto):
                raise OSError(errno.EINVAL, "Invalid argument")
            super().__init__(family, type, proto, fileno)

    ours, theirs = await pair()
    monkeypatch.setattr(socket, "socket", Reset)
    with closing(Wire(ours, 600)) as wire, theirs:
        await wire.send_all(b"all the same")
        assert await theirs.recv(100) == b"all the same"
