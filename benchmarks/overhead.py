"""What does the server add to the bare runner?

Closed loop: so many users, each with one request after the other, all with prompts of their own.
Once through the real turn loop in this process, with nothing around it; once over HTTP, from a
server process that is started for it. Both take turns within a round; tokens a second, medians.

    python -m benchmarks.overhead                     # the demo model, 64 users
    python -m benchmarks.overhead --model DIR --users 8
"""

from __future__ import annotations

import argparse
import statistics
import time

import trio
from benchmarks.overload_suite.server import running

from chatstream_trio import demo
from chatstream_trio.bench import BenchOptions, run_bench
from chatstream_trio.engine.making import load_runner
from chatstream_trio.engine.runner import Runner, Sampling
from chatstream_trio.engine.streams import StreamSpec
from chatstream_trio.engine.turns import Turns
from chatstream_trio.settings import Settings


def bare(
    runner: Runner, turns: Turns, first: int, users: int, given: argparse.Namespace
) -> tuple[float, int]:
    """Tokens a second of the turn loop alone, and the number of the next stream."""
    count, total = first, first + users * given.requests
    vocabulary = runner.info.vocab_size

    def start() -> None:
        nonlocal count
        prompt = tuple(3 + (31 * count + 7 * at * at) % (vocabulary - 3) for at in range(48))
        turns.start(StreamSpec(count, prompt, given.tokens, Sampling(temperature=0.0)))
        count += 1

    began, said = time.perf_counter(), 0
    while count < total or turns.active:
        while count < total and turns.active < users:
            start()
        turn = turns.plan()
        assert turn is not None
        for outcome in turns.settle(turn, runner.run_turn(turn)):
            said += len(outcome.tokens)
    return said / (time.perf_counter() - began), count


async def over_http(url: str, users: int, given: argparse.Namespace) -> float:
    """Tokens a second of the server."""
    report = await run_bench(
        BenchOptions(
            url,
            users=users,
            requests=users * given.requests,
            max_tokens=given.tokens,
            prompt_tokens=32,
            temperature=0,
            ignore_eos=True,
        )
    )
    return report.tokens_per_second


async def measure(given: argparse.Namespace) -> None:
    """Print the table."""
    source = given.model or str(demo.path())
    settings = Settings(compile=given.compile)
    runner = load_runner(
        source,
        model_id="m",
        device="cpu",
        rows=given.users,
        threads=given.threads,
        compiled=settings.compiled_folder if settings.compile else None,
    )
    turns, number = Turns.of(runner.info, 256), 0
    rates: dict[str, list[float]] = {"turn loop alone": [], "over HTTP": []}
    flags = [f"--max-active={given.users}", f"--threads={given.threads}"]
    flags += ["--model", source] if given.model else []
    flags += ["--compile"] if given.compile else []
    flags += given.flags.split()
    async with running(*flags) as server:
        url = f"http://{server.address.host}:{server.address.port}/v1"
        for round in range(given.rounds + 1):
            alone, number = bare(runner, turns, number, given.users, given)
            whole = await over_http(url, given.users, given)
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
