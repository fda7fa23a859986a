"""What all tests share."""

from __future__ import annotations

import pytest

NEEDS_TORCH = ("demo_model", "transformers_runner", "real_model", "benchmarks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs torch by its module's name, so that ``-m "not torch"`` is quick."""
    for item in items:
        if any(name in item.path.stem for name in NEEDS_TORCH):
            item.add_marker(pytest.mark.torch)
