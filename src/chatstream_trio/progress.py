"""A progress bar for the loading of a model, on a terminal; silence elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def loading_bar(model: str) -> Iterator[Callable[[float], None]]:
    """Show how much of ``model`` is loaded; the value takes a number from 0 to 1, in any thread.

    The bar goes away when the model is loaded or the block ends.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("Loading {task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(model, total=1.0)

        def tell(part: float) -> None:
            bar.update(task, completed=part)
            if part >= 1:
                bar.stop()

        yield tell
