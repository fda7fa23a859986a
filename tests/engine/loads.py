"""Runners that a child process can load: frozen values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen

from chatstream_trio.engine.runner import RunnerLost
from chatstream_trio.engine.scripted_runner import ScriptedRunner


@frozen
class LoadScripted:
    """A scripted runner that is lost at some tokens."""

    rows: int = 8
    pace: float = 0.0
    lost_at: tuple[int, ...] = ()
    faults: Mapping[int, Exception] = field(factory=dict)

    def __call__(self, progress: Callable[[float], None]) -> ScriptedRunner:
        """Quickly."""
        progress(1.0)
        lost = {token: RunnerLost("the device is gone") for token in self.lost_at}
        return ScriptedRunner(rows=self.rows, pace=self.pace, faults={**self.faults, **lost})
