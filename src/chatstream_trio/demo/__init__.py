"""The embedded demo model: where its files are, and nothing more.

This module knows neither torch nor transformers: whoever wants the model loads it from `path()`.
What the model is, and what it is not, stands in the `README.md` beside this file.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["MODEL_ID", "path"]

MODEL_ID = "chatstream-demo"


def path() -> Path:
    """The folder that holds the model's files, as `from_pretrained` wants it."""
    return Path(__file__).resolve().parent
