"""Where a model comes from: a folder of this machine, or the Hugging Face hub. Pure.

The only place that tells a path from a name. It asks no network and reads no file.
"""

from __future__ import annotations

import re
from pathlib import Path

from chatstream_trio.errors import ModelNotFound

_NAME = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)?", re.ASCII)
"""What can be a name on the hub: ``gpt2``, ``owner/name``."""


def folder_of(model: str) -> Path | None:
    """The folder that is meant; None for a name on the hub. A folder that is there goes first.

    Raises:
        ModelNotFound: It is a file, or nothing is there and it cannot be a name on the hub.
    """
    try:
        path = Path(model).expanduser()
        if model and path.is_dir():
            return path
        is_file = path.is_file()
    except (OSError, RuntimeError) as error:  # a user without a home, a name that is too long
        raise ModelNotFound(
            f"there is no model folder at {model!r}: {error}", param="model"
        ) from None
    if is_file:
        message = f"{model!r} is a file; a model is a folder, or a name on the hub"
        raise ModelNotFound(message, param="model")
    if not _NAME.fullmatch(model):
        raise ModelNotFound(f"there is no model folder at {model!r}", param="model")
    return None
