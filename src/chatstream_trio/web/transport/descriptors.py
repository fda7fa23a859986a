"""How many connections the system lets a process have: each is an open file.

This module knows no connection.
"""

from __future__ import annotations

from contextlib import suppress

KEPT = 256
"""Open files for everything else: the model's, a database, the log, and those connections over the
cap that are told so."""


def room_for(connections: int) -> int:
    """Raise the limit of the process for so many connections, and say how many it allows.

    The limit is raised as far as needed and as its owner may (the hard limit); of a small one,
    half is kept for the rest.
    """
    try:
        import resource
    except ImportError:  # not on this system, and neither is such a limit
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return connections
    wanted = connections + KEPT
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        with suppress(OSError, ValueError):  # some systems have a lower one that they do not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return min(connections, soft - min(KEPT, soft // 2))
