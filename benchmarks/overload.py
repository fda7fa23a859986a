"""What happens when more people come than there is room for?

Runs scenarios against a real server process over real sockets and says what came of every request,
what was left behind, and which laws were broken (the exit code is then 1). The scenarios are
described in ``benchmarks/overload_suite/scenarios``. Nothing here judges a number of milliseconds:
that depends on the machine. The load generator shares it with the server, so it is light, and says
how late it was itself (``lag``).

    python -m benchmarks.overload --short                       # a minute or two
    python -m benchmarks.overload load storm --seconds 20       # two scenarios
    python -m benchmarks.overload load --demo --seconds 30      # the embedded model
    python -m benchmarks.overload load --url http://host:8000/v1 --model NAME --max-active 8
    python -m benchmarks.overload --json report.json --plot report.png
    python -m benchmarks.overload --read report.json --plot report.png
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path

import trio
from attrs import evolve
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.overload_suite.bench import SHORT, Bench, Options
from benchmarks.overload_suite.plot import draw
from benchmarks.overload_suite.report import as_json, show, write_json
from benchmarks.overload_suite.results import Result
from benchmarks.overload_suite.scenarios import SCENARIOS

CHOSEN = "seconds seed model url pid fields patience max_active max_waiting tokens"
CHOSEN += " samples soak_requests"
"""Options of the same name."""


async def run(options: Options, names: list[str], console: Console) -> Bench:
    """Run the scenarios one after the other."""
    bench = Bench(options)
    gc.freeze()  # what was imported need not be looked at again while the clock runs
    for name in names:
        console.print(f"{name} …", style="dim")
        try:
            await SCENARIOS[name](bench)
        except Exception as error:  # a server that is gone, or hangs: the others are worth a try
            console.print_exception()
            bench.results.append(Result(name, "", problems=[f"the scenario broke off: {error!r}"]))
    return bench


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    about, _, usage = (__doc__ or "").partition("    python")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="overload", description=about, epilog=f"    python{usage}", formatter_class=form
    )
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; default: all")
    add("--short", action="store_true", help="a small house, and a few seconds for each case")
    add("--seconds", type=float, help="of load in each case (20)")
    add("--seed", type=int, help="of arrivals, phases and ways to leave (0)")
    add(
        "--model", help="of the server that is started (scripted:25), or the name to ask for at URL"
    )
    add("--demo", action="store_true", help="start the server with the embedded demo model")
    add("--url", help="base URL of a server that runs already, such as http://127.0.0.1:8000/v1")
    add("--pid", type=int, help="of the server at URL: its memory, sockets and processor are seen")
    add("--fields", type=json.loads, metavar="JSON", help='more of a request: {"ignore_eos": true}')
    add("--patience", type=float, help="seconds after which a request is called hung (120)")
    add("--max-active", type=int, help="seats (8); with --url, those that it has")
    add("--max-waiting", type=int, help="places in the waiting room (64)")
    add("--tokens", type=int, help="max_tokens of a request (20)")
    add("--factors", help="of the capacity, in `load` (0.5,1,2,5,10)")
    add("--samples", type=int, help="hang-ups of each kind, in `hangup` (30)")
    add("--soak-requests", type=int, help="requests, in `soak` (20000)")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    add("--plot", type=Path, metavar="FILE", help="draw it there, as PNG or SVG (needs matplotlib)")
    add("--read", type=Path, metavar="FILE", help="run nothing: draw what --json wrote")
    given = parser.parse_args(arguments)
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    if given.read and not given.plot:
        parser.error("--read needs --plot")
    return given


def options_from(given: argparse.Namespace) -> Options:
    """The options that were asked for."""
    options = SHORT if given.short else Options()
    chosen = {name: getattr(given, name) for name in CHOSEN.split()}
    options = evolve(options, **{k: v for k, v in chosen.items() if v is not None})
    if given.factors:
        options = evolve(options, factors=tuple(map(float, given.factors.split(","))))
    if given.demo or (given.url and given.model is None):
        options = evolve(options, model=None)
    return options


def main() -> int:
    """Run, show, write; 1 when a law was broken."""
    given = parse()
    console = Console(width=None if sys.stdout.isatty() else 180)
    if given.read:
        report = json.loads(given.read.read_text("utf-8"))
        draw(given.plot, report)
        return 0
    options = options_from(given)
    bench = trio.run(run, options, given.scenarios or list(SCENARIOS), console)
    show(bench.results, console)
    report = as_json(bench.results, options)
    if given.json:
        write_json(given.json, report)
    if given.plot:
        draw(given.plot, json.loads(json.dumps(report)))
    return int(any(result.problems for result in bench.results))


if __name__ == "__main__":
    sys.exit(main())
