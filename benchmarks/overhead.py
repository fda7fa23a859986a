"""What does the server add to the bare runner?

Closed loop: so many users, each with one request after the other, all with prompts of their own.
Once through the real turn loop in this process, with nothing around it; once over HTTP, from a
server process that is started for it. Both take turns within a round; tokens a second, medians.

Who asks over HTTP runs on the same cores. It should cost little beside what is measured, so it only
counts bytes and looks every few milliseconds. ``chatstream-trio bench`` notes the time of each
piece, and takes about as long for it as the server.

    python -m benchmarks.overhead                     # the demo model, 64 users
    python -m benchmarks.overhead --model DIR --users 8
"""

from __future__ import annotations

import argparse
import re
import selectors
import socket
import statistics
import time
from contextlib import ExitStack

import trio
from attrs import define, field
from benchmarks.overload_suite.server import running

from chatstream_trio import demo
from chatstream_trio.bench.client import chat_request
from chatstream_trio.bench.http import Address
from chatstream_trio.engine.runner import Runner, Sampling
from chatstream_trio.engine.scheduler import Scheduler
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.settings import Settings
from chatstream_trio.torch_runner.load.build import load_runner
from chatstream_trio.torch_runner.load.options import RunnerOptions

LOOK_SECONDS = 0.01
PATIENCE_SECONDS = 60.0
"""Without a byte from anybody."""
LAST_CHUNK = b"\r\n0\r\n\r\n"
USAGE = re.compile(rb'"prompt_tokens":(\d+),"completion_tokens":(\d+)')


@define
class User:
    """One connection, with one request after the other on it."""

    address: Address
    number: int
    left: int
    """Answers that are still to be asked for."""
    prompts: list[int] = field(factory=list)
    """Tokens of each prompt, by the server's own count."""
    said: int = 0
    """Tokens, by the server's own count, of whole answers."""
    socket: socket.socket = field(init=False)
    _came: bytearray = field(factory=bytearray, init=False)

    def __attrs_post_init__(self) -> None:
        self.socket = socket.create_connection((self.address.host, self.address.port))

    def ask(self, tokens: int) -> None:
        """Send the next request."""
        self.socket.setblocking(True)
        self.socket.sendall(chat_request(self.address, None, _question(self, tokens)))
        self.socket.setblocking(False)
        self.left -= 1
        self._came.clear()

    def look(self) -> bool:
        """Take what came; say whether the answer is complete."""
        data = self.socket.recv(2**20)
        self._came += data
        if data and not self._came.endswith(LAST_CHUNK):
            return False
        usage = USAGE.search(self._came)
        if usage is None:
            raise RuntimeError(f"no whole answer came: {bytes(self._came[-300:])!r}")
        prompt, said = map(int, usage.groups())
        self.prompts.append(prompt)
        self.said += said
        return True

    def close(self) -> None:
        """End the connection."""
        self.socket.close()


def _question(user: User, tokens: int) -> dict[str, object]:
    words = (f"{(31 * user.number + 7 * user.left + at * at) % 997}" for at in range(12))
    return {
        "messages": [{"role": "user", "content": " ".join(words)}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def over_http(address: Address, given: argparse.Namespace) -> tuple[float, list[int]]:
    """Tokens a second of the server, and the tokens of each prompt."""
    users = [User(address, number, given.requests) for number in range(given.users)]
    with selectors.DefaultSelector() as answering, ExitStack() as stack:
        began = heard = time.perf_counter()
        for user in users:
            stack.callback(user.close)
            answering.register(user.socket, selectors.EVENT_READ, user)
            user.ask(given.tokens)
        while answering.get_map():
            time.sleep(LOOK_SECONDS)
            speaking = [key.data for key, _ in answering.select(0)]
            if speaking:
                heard = time.perf_counter()
            elif time.perf_counter() - heard > PATIENCE_SECONDS:
                raise RuntimeError("the server answers no more")
            for user in [user for user in speaking if user.look()]:
                if user.left:
                    user.ask(given.tokens)
                else:
                    answering.unregister(user.socket)
        seconds = time.perf_counter() - began
    said = sum(user.said for user in users)
    return said / seconds, [length for user in users for length in user.prompts]


def bare(
    runner: Runner, scheduler: Scheduler, first: int, lengths: list[int], given: argparse.Namespace
) -> float:
    """Tokens a second of the turn loop alone, with prompts of these ``lengths``.

    The streams are numbered from ``first``.
    """
    count, total = first, first + len(lengths)
    vocabulary = runner.info.vocab_size

    def start() -> None:
        nonlocal count
        prompt = tuple(
            3 + (31 * count + 7 * at * at) % (vocabulary - 3)
            for at in range(lengths[count - first])
        )
        scheduler.start(StreamSpec(count, prompt, given.tokens, Sampling(temperature=0.0)))
        count += 1

    began, said = time.perf_counter(), 0
    while count < total or scheduler.active:
        while count < total and scheduler.active < given.users:
            start()
        turn = scheduler.plan()
        assert turn is not None
        for outcome in scheduler.settle(turn, runner.launch(turn)()):
            said += len(outcome.tokens)
    return said / (time.perf_counter() - began)


async def measure(given: argparse.Namespace) -> None:
    """Print the table."""
    source = given.model or str(demo.path())
    settings = Settings(compile=given.compile)
    runner = load_runner(
        source,
        RunnerOptions(
            model_id="m",
            device="cpu",
            rows=given.users,
            threads=given.threads,
            compiled=settings.compiled_folder if settings.compile else None,
        ),
    )
    scheduler, number = Scheduler.of(runner.info, 256), 0
    rates: dict[str, list[float]] = {"turn loop alone": [], "over HTTP": []}
    flags = [f"--max-active={given.users}", f"--threads={given.threads}"]
    flags += ["--model", source] if given.model else []
    flags += ["--compile"] if given.compile else []
    flags += given.flags.split()
    async with running(*flags) as server:
        for round in range(given.rounds + 1):
            whole, lengths = await trio.to_thread.run_sync(over_http, server.address, given)
            alone = bare(runner, scheduler, number, lengths, given)
            number += len(lengths)
            if round:  # the first round warms up
                rates["turn loop alone"].append(alone)
                rates["over HTTP"].append(whole)
    base = statistics.median(rates["turn loop alone"])
    print(f"{given.users} users, {given.tokens} tokens an answer; {'; '.join(runner.info.notes)}")
    for name, all_rates in rates.items():
        middle = statistics.median(all_rates)
        ordered = ", ".join(f"{rate:.0f}" for rate in sorted(all_rates))
        print(f"{name:18}{middle:9.0f} tokens/s  ({ordered})   {middle / base:.2f}")


def main() -> None:
    """Read the command line and measure."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--model", help="a model directory (default: the demo model)")
    options.add_argument("--users", type=int, default=64)
    options.add_argument("--requests", type=int, default=4, help="of each user")
    options.add_argument("--tokens", type=int, default=64, help="of each answer")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--compile", action="store_true")
    options.add_argument("--with", dest="flags", default="", help="more flags of the server")
    trio.run(measure, options.parse_args())


if __name__ == "__main__":
    main()
