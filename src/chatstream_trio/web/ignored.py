"""Fields of requests that were passed over, and who hears of it: the log, once, and the client.

Names are a client's own words, so what is kept and said of them is bounded. This module knows no
API and no body.
"""

from __future__ import annotations

import logging
import re
from urllib.parse import quote

from attrs import define, field

from chatstream_trio.web.bodies.reading import refuse_unknown

logger = logging.getLogger(__name__)

HEADER = "X-Ignored-Fields"
"""Of a reply: the fields of its request that were passed over."""
MOST_NAMED = 16
"""Fields that one reply names."""
MOST_REMEMBERED = 256
"""Fields that the log names in the life of a server."""
_LONGEST_NAME = 64
_LONGEST_HEADER = 1000
"""Characters, which in a name that is not ASCII are up to twelve for one."""
_INDEX = re.compile(r"\[[0-9]+\]")


@define
class Ignored:
    """The unknown fields of one request. It may be told of them in a thread of the side."""

    refuses: bool
    """Whether there may be none."""
    names: dict[str, None] = field(factory=dict, init=False)
    """In order, without the places in lists: ``messages[].odd`` is one, however often."""
    more: bool = field(default=False, init=False)
    """Whether there were others besides."""

    def __call__(self, at: str) -> None:
        """Pass over the field at a path.

        Raises:
            InvalidRequest: None may be passed over.
        """
        if self.refuses:
            refuse_unknown(at)
        if self.more:
            return
        name = _INDEX.sub("[]", at)[:_LONGEST_NAME]
        if name not in self.names:
            self.more = len(self.names) == MOST_NAMED
            if not self.more:
                self.names[name] = None

    @property
    def headers(self) -> dict[str, str]:
        """What the client is told, in ASCII; nothing where there was nothing."""
        if not self.names:
            return {}
        value, rest = "", "..." if self.more else ""
        for name in self.names:
            quoted = quote(name, safe="[]$@", errors="replace")
            if len(value) + len(quoted) > _LONGEST_HEADER:
                rest = "..."
                break
            value += f", {quoted}" if value else quoted
        return {HEADER: ", ".join(filter(None, (value, rest)))}


@define
class Notices:
    """What the log of one server has named already."""

    _told: set[str] = field(factory=set, init=False)

    def tell(self, ignored: Ignored) -> None:
        """Log each name that was not logged before, as long as they are not too many."""
        for name in list(ignored.names):
            if name in self._told or len(self._told) == MOST_REMEMBERED:
                continue
            self._told.add(name)
            logger.warning("the field %r of requests is not known, and ignored", name)
            if len(self._told) == MOST_REMEMBERED:
                logger.warning("other fields that are ignored will not be named")
