"""What proxies say of whom they serve: ``X-Forwarded-For``, and ``Forwarded`` (RFC 7239).

Each proxy appends one entry. What the last ones wrote is at the end, and what a client wrote
before is in front of it, whatever that is: so both are read from the end, over all lines of the
header. This module does not know which of the two counts, nor how many entries are to be believed.
"""

from __future__ import annotations

import re

from werkzeug.datastructures import Headers

_MOST = 4096
"""Characters from the end of ``Forwarded``: a few elements, with room for what a proxy adds."""
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Real proxies do not always quote what has a colon or brackets, as they should.
_VALUE = r"[!#$%&'*+.^_`|~0-9A-Za-z:\[\]-]+" + r'|"(?:[^"\\]|\\.)*"'
_PAIR = re.compile(rf"\s*(?:({_TOKEN})=({_VALUE}))?\s*(;|\Z)")


def hearsay(headers: Headers, name: str, most: int) -> list[str]:
    """The last ``most`` entries of a header, oldest first; fewer if there are not so many.

    Each stands for one hop, also when it is empty or nonsense: if such were skipped, those of the
    client would move up into their place.
    """
    lines = headers.getlist(name)
    if not lines or most < 1:
        return []
    text = ",".join(lines)
    if name.lower() == "forwarded":
        return _read_elements(text, most)
    return [entry.strip(" \t") for entry in text.split(",")[-most:]]


def _read_elements(text: str, most: int) -> list[str]:
    """The ``for`` of the last elements; one that cannot be read is empty, and the first known.

    A comma may be inside quotes, and a client may leave a quote open: an element is the shortest
    text behind a comma that is one, from the end.
    """
    if len(text) > _MOST:
        text = "\0" + text[-_MOST:]  # no element begins where it was cut
    found: list[str] = []
    end = len(text)
    while len(found) < most and end >= 0:
        start, node = end, None
        while node is None and start >= 0:
            start = text.rfind(",", 0, start)
            node = _node_in(text[start + 1 : end])
        found.append(node or "")
        end = start
    return found[::-1]


def _node_in(element: str) -> str | None:
    """The ``for`` of an element, empty without one; None if the text is no element."""
    nodes, at, more = [], 0, True
    while more:
        match = _PAIR.match(element, at)
        if match is None:
            return None
        name, value, separator = match.groups()
        if name and name.lower() == "for":
            nodes.append(re.sub(r"\\(.)", r"\1", value))
        at, more = match.end(), separator == ";"
    return nodes[0] if len(nodes) == 1 else ""
