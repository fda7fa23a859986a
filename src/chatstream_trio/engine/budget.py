"""How much memory the keys and values may take: a size, or a share of what is free.

Pure: it does not know devices, nor what is free.
"""

from __future__ import annotations

import re

from attrs import frozen

from chatstream_trio.errors import SettingsError

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", start=1):
    _UNITS[f"{_letter}B"] = 1000**_power
    _UNITS[f"{_letter}IB"] = 1024**_power


@frozen
class Budget:
    """A number of bytes, or a share of the free memory."""

    text: str
    """The budget as it was written."""
    bytes: int | None = None
    share: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``2GiB``, ``500 MB``, ``1000000`` (bytes) or ``50%``.

        Raises:
            SettingsError: It is none of these, or nothing would be left or taken.
        """
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|[a-z]*)\s*", text, re.IGNORECASE)
        number, unit = (float(found[1]), found[2].upper()) if found else (0.0, "")
        if unit == "%" and 0 < number <= 100:
            return cls(text, share=number / 100)
        if number * _UNITS.get(unit, 0) >= 1:
            return cls(text, bytes=int(number * _UNITS[unit]))
        raise SettingsError(
            "kv_memory must be a size such as 2GiB or 500MB, a number of bytes, or a share of what"
            f" is free such as 50%; it is {text!r}",
            param="kv_memory",
        )

    def of(self, free: int) -> int:
        """How many bytes it is, where so many are free."""
        return int(free * self.share) if self.bytes is None else self.bytes


def in_words(count: float) -> str:
    """A number of bytes, as a person reads it."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
