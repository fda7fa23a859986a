"""What the files beside a model's weights say about making vectors: those of sentence-transformers.

It loads no model. Where there are no such files, vectors are means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from attrs import frozen

from chatstream_trio.errors import SettingsError

ReadJson = Callable[[str], Any]
"""What is in a file, by its place in the folder; None where there is no such file."""


class Pool(Enum):
    """How the hidden states of a text become one vector. The values are those of the files."""

    CLS = "cls"
    MEAN = "mean"
    MAX = "max"
    LAST = "lasttoken"


_FORMER = {
    "pooling_mode_cls_token": Pool.CLS,
    "pooling_mode_mean_tokens": Pool.MEAN,
    "pooling_mode_max_tokens": Pool.MAX,
    "pooling_mode_lasttoken": Pool.LAST,
}


@frozen
class Recipe:
    """How a text becomes a vector."""

    pool: Pool = Pool.MEAN
    longest: int | None = None
    """Tokens of a text at most, where that is said."""

    @classmethod
    def of(cls, read: ReadJson) -> Recipe:
        """What the files of a model say.

        Raises:
            SettingsError: They ask for something that is not done here.
        """
        pool, modules = Pool.MEAN, read("modules.json") or []
        for module in modules:
            kind = str(module.get("type", "")).rpartition(".")[2]
            if kind == "Pooling":
                pool = _pool(read(f"{module['path']}/config.json") or {})
            elif kind not in ("Transformer", "Normalize"):
                raise SettingsError(
                    f"its vectors go through a module {kind!r}, which cannot be done here",
                    param="embedding_model",
                )
        said = (read("sentence_bert_config.json") or {}) if modules else {}
        if said.get("do_lower_case"):
            raise SettingsError("it wants texts in lower case", param="embedding_model")
        return cls(pool, said.get("max_seq_length"))


def _pool(config: Mapping[str, Any]) -> Pool:
    mode = config.get("pooling_mode")
    asked = [mode] if isinstance(mode, str) else mode
    if asked is None:
        asked = [key for key, value in config.items() if key in _FORMER or value is True]
        asked = [key for key in asked if key.startswith("pooling_mode_") and config[key]]
        asked = [_FORMER[key].value if key in _FORMER else key for key in asked]
    try:
        (pool,) = map(Pool, asked)
    except ValueError:
        raise SettingsError(
            f"its pooling is {' and '.join(map(str, asked)) or 'none'}; it can be"
            f" {', '.join(pool.value for pool in Pool)}",
            param="embedding_model",
        ) from None
    return pool


def parse(text: str) -> Any:
    """JSON."""
    return json.loads(text)
