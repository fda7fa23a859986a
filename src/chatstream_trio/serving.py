"""The life of a server process: listen, load, serve, drain, end.

Law 11 of the design: the first signal drains, the second cuts at once, and a signal while the
model loads ends at once. A hangup reads the certificate again and ends nothing. It knows no flags;
:mod:`chatstream_trio.cli` makes the settings.
"""

from __future__ import annotations

import ctypes
import gc
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import trio
from attrs import frozen

from chatstream_trio.engine.runner import RunnerInfo
from chatstream_trio.errors import ChatStreamError, SettingsError
from chatstream_trio.house import Health
from chatstream_trio.models import Model
from chatstream_trio.service import ChatStream
from chatstream_trio.settings import Settings
from chatstream_trio.web.app import create_app
from chatstream_trio.web.transport.descriptors import room_for
from chatstream_trio.web.transport.limits import ServerLimits
from chatstream_trio.web.transport.server import bind, serve
from chatstream_trio.web.transport.tls import Certificate

LAST_WORDS_SECONDS = 1.0
"""How long the last error events may take to reach their readers, once everything was cut."""


@frozen
class Door:
    """Where clients come in."""

    sockets: list[socket.socket]
    certificate: Certificate | None
    room: int
    """Connections that the system lets us have at once."""


def open_door(settings: Settings) -> Door:
    """Read the certificate and take the port, before anything else is begun.

    Raises:
        SettingsError: One of them cannot be had.
    """
    certificate = _read_certificate(settings)
    try:
        return Door(bind(settings.host, settings.port), certificate, _room(settings))
    except OSError as error:
        reason = error.strerror or str(error)
        raise SettingsError(
            f"cannot listen on {settings.host} port {settings.port}: {reason}", param="port"
        ) from None


def _room(settings: Settings) -> int:
    room = room_for(settings.max_connections)
    if room < settings.max_connections:
        _say(
            f"The limit on open files leaves room for at most {room} connections, which is less"
            f" than max_connections = {settings.max_connections}; to have more, raise the hard"
            " limit (ulimit -Hn)"
        )
    return room


def _read_certificate(settings: Settings) -> Certificate | None:
    if settings.certfile is None:
        if settings.keyfile is not None:
            raise SettingsError("keyfile needs a certfile", param="keyfile")
        return None
    try:
        return Certificate(settings.certfile, settings.keyfile)
    except (OSError, ValueError) as error:
        raise SettingsError(_what_is_wrong(error), param="certfile") from None


def _what_is_wrong(error: OSError | ValueError) -> str:
    """What is wrong with a certificate, in a few words."""
    if isinstance(error, OSError):
        return f"cannot read {error.filename}: {error.strerror}"
    return str(error)


async def run_server(settings: Settings, model: Model, door: Door) -> bool:
    """Serve until a signal comes, and everything that was begun has ended.

    Returns:
        Whether a thread was left behind, for which the process must not wait.

    Raises:
        ModelNotFound, ModelNotLoaded: The model cannot be served.
    """
    with (
        trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
    ):
        async with ChatStream.open(settings, model=model, wait=False) as chat:
            await _serve(chat, door, signals, hangups)
    return chat.abandoned


async def _serve(
    chat: ChatStream, door: Door, signals: AsyncIterator[int], hangups: AsyncIterator[int]
) -> None:
    settings = chat.settings
    limits = ServerLimits(
        max_connections=door.room,
        keep_alive_timeout=settings.keep_alive,
        write_timeout=settings.write_timeout,
        max_body_bytes=settings.max_body_bytes,
    )
    stop = trio.Event()
    failure: ChatStreamError | None = None
    async with trio.open_nursery() as nursery:
        start = partial(
            serve,
            create_app(chat),
            door.sockets,
            limits,
            tls=door.certificate,
            shutdown_trigger=stop.wait,
        )
        urls: list[str] = await nursery.start(start)
        async with trio.open_nursery() as until_signal:
            until_signal.start_soon(_end_on_signal, chat, signals, until_signal.cancel_scope)
            until_signal.start_soon(_read_again_on_hangup, door.certificate, hangups)
            try:
                info = await chat.ready()
                _keep_what_was_loaded()
                _announce(info, urls)
            except ChatStreamError as error:
                failure = error
                until_signal.cancel_scope.cancel()
        stop.set()
    if failure is not None:
        raise failure


def _keep_what_was_loaded() -> None:
    """Tell the garbage collector not to look again at what stays for the life of the process.

    With torch and transformers loaded that is 380,000 objects, and a full collection, which then
    comes now and again, stops the event loop and the turns for 0.19 s (measured).

    What was only needed for loading goes back to the system, where the C library can be told to
    (glibc): 600 MB after a model of 269 MB was compiled.
    """
    gc.collect()
    gc.freeze()
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _announce(info: RunnerInfo, urls: list[str]) -> None:
    for note in info.notes:
        _say(note)
    for url in urls:
        _say(f"Listening on {url}")


async def _end_on_signal(
    chat: ChatStream, signals: AsyncIterator[int], until_signal: trio.CancelScope
) -> None:
    """First signal: drain. Second: cut. Then let the server end."""
    await anext(signals)
    if chat.health is not Health.LOADING:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cut_on_signal, chat, signals)
            if live := len(chat.status().streams):
                requests = "1 request" if live == 1 else f"{live} requests"
                _say(f"Draining {requests}; once more to cut them off")
            await chat.drain(chat.settings.drain_seconds)
            with trio.move_on_after(LAST_WORDS_SECONDS):
                await chat.until_empty()
            nursery.cancel_scope.cancel()
    until_signal.cancel()


async def _read_again_on_hangup(
    certificate: Certificate | None, hangups: AsyncIterator[int]
) -> None:
    """A hangup ends nothing: it asks for what is in the files now, where there are any."""
    async for _ in hangups:
        if certificate is None:
            continue
        try:
            await trio.to_thread.run_sync(certificate.read_again, abandon_on_cancel=True)
        except (OSError, ValueError) as error:
            _say(f"The old certificate stays: {_what_is_wrong(error)}")
        else:
            _say(f"Read {certificate.certfile} again")


async def _cut_on_signal(chat: ChatStream, signals: AsyncIterator[int]) -> None:
    await anext(signals)
    chat.cut()


def _say(line: str) -> None:
    with suppress(OSError):  # whoever listened may be gone: no reason to end
        print(line, file=sys.stderr, flush=True)
