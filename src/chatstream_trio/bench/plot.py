"""A report as a picture. The only module that needs matplotlib, which is the extra ``bench``."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chatstream_trio.bench.report import BenchReport
from chatstream_trio.bench.sample import SampleEnding
from chatstream_trio.errors import SettingsError

SUFFIXES = (".png", ".svg", ".pdf")
COLORS = {"done": "#4477aa", "refused": "#ddaa33", "failed": "#bb5566", "unfinished": "#999999"}


def check(path: Path) -> None:
    """Before anything is measured.

    Raises:
        SettingsError: There is no matplotlib, or it cannot write such a file.
    """
    if path.suffix not in SUFFIXES:
        raise SettingsError(f"plot must end in one of {', '.join(SUFFIXES)}", param="plot")
    if find_spec("matplotlib") is None:
        raise SettingsError(
            "plot needs matplotlib: pip install 'chatstream-trio[bench]'", param="plot"
        )


def draw(path: Path, report: BenchReport, began: float) -> None:
    """Four panels: how long for the first token, how long between chunks, chunks and ends in time.

    Args:
        began: When the measurement did, in ``time.monotonic()`` seconds.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    samples = report.samples
    figure, panels = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    _shares(panels[0][0], "time to first token", (s.ttft for s in samples if s.ttft is not None))
    _shares(panels[0][1], "gap between chunks", (gap for s in samples for gap in s.gaps))
    bins = range(int(report.seconds) + 2)
    panels[1][0].hist([at - began for s in samples for at in s.chunks], bins)
    panels[1][0].set(title="chunks in each second", xlabel="s")
    ends: dict[str, list[float]] = {outcome.value: [] for outcome in SampleEnding}
    for sample in samples:
        if sample.ended is not None:
            ends[sample.outcome.value].append(sample.ended - began)
    seen = {name: times for name, times in ends.items() if times}
    panels[1][1].hist(
        list(seen.values()), bins, stacked=True, label=list(seen), color=[COLORS[n] for n in seen]
    )
    panels[1][1].set(title="requests that ended in each second", xlabel="s")
    if seen:
        panels[1][1].legend()
    for panel in panels.flat:
        panel.grid(alpha=0.3)
    figure.suptitle(
        f"{report.model} at {report.options.url}: {report.tokens_per_second:g} tokens/s"
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _shares(panel: Any, title: str, seconds: Iterable[float]) -> None:
    values = sorted(second * 1e3 for second in seconds)
    shares = [(number + 1) / len(values) for number in range(len(values))]
    panel.step(values, shares, where="post", color="#4477aa")
    panel.set(title=title, xlabel="ms", ylabel="share that took no longer", ylim=(0, 1.02))
