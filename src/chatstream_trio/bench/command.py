"""``chatstream-trio bench``: a measurement with a progress bar, Ctrl-C, a table and files."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from chatstream_trio.bench import plot
from chatstream_trio.bench.measure import Measurement, Phase
from chatstream_trio.bench.options import BenchOptions
from chatstream_trio.bench.report import as_json, as_table
from chatstream_trio.bench.sample import SampleEnding
from chatstream_trio.errors import ChatStreamError, SettingsError

SHOW_SECONDS = 0.25
INTERRUPTED = 130


def run(options: BenchOptions, json_file: Path | None, plot_file: Path | None) -> int:
    """Measure, print the table, write the files; the value is the exit code.

    Raises:
        SettingsError: A file cannot be written there; nothing has been measured then.
        NoServer: Nobody answers.
    """
    for name, path in (("json", json_file), ("plot", plot_file)):
        if path is not None and not path.absolute().parent.is_dir():
            raise SettingsError(f"{name}: there is no folder {path.parent}", param=name)
    if plot_file is not None:
        plot.check(plot_file)
    measurement = Measurement(options)
    interrupted = trio.run(_measure, measurement)
    report = measurement.report()
    if not report.samples:
        print("chatstream-trio: ended before anything was measured", file=sys.stderr)
        return INTERRUPTED if interrupted else 1
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(as_table(report))
    if json_file is not None:
        text = json.dumps(as_json(report), indent=1, ensure_ascii=False)
        json_file.write_text(text + "\n", "utf-8")
    if plot_file is not None:
        plot.draw(plot_file, report, measurement.began)
    if interrupted:
        return INTERRUPTED
    return 0 if report.done else 1


async def _measure(measurement: Measurement) -> bool:
    """Run it; the value says whether it was interrupted."""
    interrupted, trouble = False, None

    async def listen(task_status: trio.TaskStatus[None]) -> None:
        nonlocal interrupted
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                interrupted = True
                nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(listen)
            if sys.stderr.isatty():
                nursery.start_soon(_show, measurement)
            await measurement.run()
            nursery.cancel_scope.cancel()
    except* ChatStreamError as group:
        trouble = group.exceptions[0]
    if trouble is not None:
        raise trouble
    return interrupted


async def _show(measurement: Measurement) -> None:
    """A bar on stderr. It is drawn from here, four times a second, and not by a thread."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[seen]}"))
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, auto_refresh=False, transient=True
    ) as progress:
        bar = progress.add_task(measurement.phase.value, total=None, seen="")
        while True:
            if measurement.phase is Phase.MEASURING:
                done, total = _progress(measurement)
                progress.update(bar, completed=done, total=total)
            seen = _seen(measurement)
            progress.update(bar, description=measurement.phase.value, seen=seen, refresh=True)
            await trio.sleep(SHOW_SECONDS)


def _progress(measurement: Measurement) -> tuple[float, float]:
    seconds = measurement.options.sending_seconds
    if seconds is not None:
        return min(seconds, time.monotonic() - measurement.began), seconds
    ended = sum(sample.ended is not None for sample in measurement.samples)
    return ended, measurement.options.requests or 0


def _seen(measurement: Measurement) -> str:
    counts = Counter(sample.outcome for sample in measurement.samples)
    names = {**dict.fromkeys(SampleEnding, ""), SampleEnding.UNFINISHED: "running"}
    return ", ".join(f"{counts[o]} {names[o] or o.value}" for o in SampleEnding if counts[o])
