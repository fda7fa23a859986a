"""The servers that are compared, as processes: what starts them, when they are there, their end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import Factory, frozen
from benchmarks.overload_suite.http import get

from chatstream_trio.bench.http import Address, ConnectionEndedError, MalformedResponseError

ROOT = Path(__file__).resolve().parents[2]
SEATS = 8
CONTEXT = 2048
"""Tokens for each seat, for servers that want to be told."""
START_SECONDS = 300.0
END_SECONDS = 20.0
LOOK_SECONDS = 0.2
LAST_LINES = 8


class PeerFailedError(Exception):
    """A server did not start; the text is its last words."""


@frozen
class Peer:
    """A server that can be started."""

    name: str
    command: Callable[[int], Sequence[str]]
    """The command line, for a port."""
    model: str | None = None
    """What it calls the model; None: the first that it names."""
    options: Mapping[str, Any] = Factory(dict)
    """What it accepts, as :class:`BenchOptions` have it."""


def ours(model: Path, *flags: str) -> Peer:
    """This project's server, from this checkout, as it comes or with some flags."""
    serve = [sys.executable, "-m", "chatstream_trio", "serve", "--model", str(model), *flags]
    return Peer(
        " ".join(("chatstream-trio", *flags)),
        lambda port: [*serve, "--port", str(port)],
        options={"ignore_eos": True},
    )


def transformers_serve(model: Path, program: Path) -> Peer:
    """``transformers serve``. It refuses ``ignore_eos``, and gives the usage unasked."""
    serve = [str(program), "serve", str(model), "--continuous-batching", "--device", "cpu"]
    return Peer(
        "transformers serve",
        lambda port: [*serve, "--host", "127.0.0.1", "--port", str(port)],
        model=str(model),
        options={"include_usage": False},
    )


def chatstream(model: Path, python: Path, tokens: int) -> Peer:
    """ChatStream 0.3.0, with OpenAI's endpoint put in front of its own by a script of ours."""
    script = Path(__file__).with_name("chatstream_server.py")
    return Peer(
        "ChatStream 0.3.0",
        lambda port: [str(python), str(script), str(model), str(port), str(SEATS), str(tokens)],
        model="any",
        options={"include_usage": False},
    )


def llama_server(gguf: Path, program: Path, threads: int) -> Peer:
    """llama.cpp's server."""
    room = ["--parallel", str(SEATS), "--ctx-size", str(SEATS * CONTEXT)]
    serve = [str(program), "-m", str(gguf), *room, "--threads", str(threads)]
    return Peer(
        "llama-server",
        lambda port: [*serve, "--host", "127.0.0.1", "--port", str(port)],
        model="any",
        options={"ignore_eos": True},
    )


def found(program: str | None) -> Path | None:
    """The program, if there is one of this name or at this path. A venv's link is not followed."""
    place = None if program is None else shutil.which(program)
    return None if place is None else Path(place).absolute()


@asynccontextmanager
async def running(peer: Peer, logs: Path) -> AsyncIterator[str]:
    """Start a server and wait until it answers; the value is its URL. It is ended in any case.

    Its words go to a file in ``logs``.

    Raises:
        PeerFailedError: It ended, or did not answer in time.
    """
    port = _free_port()
    log = logs / f"{file_name(peer.name)}.log"
    with log.open("wb") as file:
        process = await trio.lowlevel.open_process(
            peer.command(port),
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(),
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        with trio.move_on_after(START_SECONDS) as patience:
            await _until_it_answers(Address.of(url), process)
        if patience.cancelled_caught or process.poll() is not None:
            raise PeerFailedError(_last_words(log))
        yield url
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _until_it_answers(address: Address, process: trio.Process) -> None:
    while process.poll() is None:
        try:
            status, _ = await get(address, "/health")
            if status == 404:
                status, _ = await get(address, "/v1/models")
            if status == 200:
                return
        except (OSError, ConnectionEndedError, MalformedResponseError):
            pass
        await trio.sleep(LOOK_SECONDS)


async def _end(process: trio.Process) -> None:
    """SIGTERM, then SIGKILL, for all that it started; it led a process group of its own."""
    _signal_group(process, signal.SIGTERM)
    with trio.move_on_after(END_SECONDS):
        await process.wait()
    _signal_group(process, signal.SIGKILL)
    await process.wait()


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # nobody is left


def file_name(peer: str) -> str:
    """A peer's name, which may hold flags and paths, as one part of a path."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "-", peer)[:100]


def _last_words(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()
    return "\n".join(lines[-LAST_LINES:]) or "it said nothing"


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _environment() -> dict[str, str]:
    path = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(path)}
