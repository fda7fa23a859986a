"""Results, as they are in the JSON, as a picture. The only module that needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BOUND = "1 turn + 20 ms"


def draw(path: Path, report: Mapping[str, Any]) -> None:
    """Four panels: goodput, waiting, refusals against load; and hang-ups or memory."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    results: Sequence[Mapping[str, Any]] = report["results"]
    cases = [r for r in results if r["scenario"] == "load" and r["figures"]]
    figure, panels = plt.subplots(2, 2, figsize=(11, 7.5), layout="constrained")
    if cases:
        _goodput(panels[0][0], cases)
        _durations(panels[0][1], cases, {"time to first token": "ttft_ms", "429": "refusal_ms"})
        panels[0][1].set_yscale("log")
        _durations(panels[1][0], cases, {"between chunks": "gap_ms"})
        panels[1][0].set_ylim(0, None)
    _hangups(panels[1][1], [r for r in results if r["scenario"] == "hangup"])
    for panel in panels.flat:
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend()
    figure.suptitle("ChatStream Trio under load")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _goodput(panel: Any, cases: Sequence[Mapping[str, Any]]) -> None:
    factors = [case["extra"]["factor"] for case in cases]
    good = [case["figures"]["goodput"] for case in cases]
    panel.plot(factors, good, "o-", label="completed")
    panel.axhline(cases[0]["extra"]["capacity"], color="grey", ls="--", label="capacity")
    panel.set(title="goodput", xlabel="offered / capacity", ylabel="requests/s", ylim=(0, None))


def _durations(panel: Any, cases: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    for label, name in names.items():
        for percentile, style in (("p50", "o-"), ("p99", "s:")):
            pairs = [(c["extra"]["factor"], c["figures"][name][percentile]) for c in cases]
            known = [pair for pair in pairs if pair[1] is not None]
            if known:
                panel.plot(*zip(*known, strict=True), style, label=f"{label}, {percentile}")
    panel.set(title=", ".join(names), xlabel="offered / capacity", ylabel="ms")


def _hangups(panel: Any, cases: Sequence[Mapping[str, Any]]) -> None:
    extra = cases[0]["extra"] if cases else {}
    spreads = {name: value for name, value in extra.items() if name.endswith(("fin", "rst"))}
    if not spreads:
        panel.set_visible(False)
        return
    panel.barh(list(spreads), [s["p99"] for s in spreads.values()], color="#c8d8ee", label="p99")
    medians = [s["p50"] for s in spreads.values()]
    panel.barh(list(spreads), medians, color="#4477aa", height=0.4, label="p50")
    panel.axvline(extra["turn_plus_20_ms"], color="grey", ls="--", label=BOUND)
    panel.set(title="from a hang-up to the free place", xlabel="ms")
    panel.invert_yaxis()
