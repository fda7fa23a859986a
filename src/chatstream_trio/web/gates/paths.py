"""Which paths of an app are ours, and what to say where there is nothing.

This module knows Quart's table of routes, and nothing of what is behind them.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define
from quart import Blueprint, Quart
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

_MOST = 200
"""Characters of a path that a message repeats."""


_NOT_HERE = {
    **dict.fromkeys(("rerank", "score"), "no model for ranking is served"),
    **dict.fromkeys(("audio", "images"), "the model reads and writes text"),
    "moderations": "no model for moderation is served",
}
"""Paths of other servers' APIs that clients try, by their first part: why there will be nothing."""


@define
class Paths:
    """The endpoints of some blueprints."""

    app: Quart
    blueprints: Sequence[Blueprint]
    whole: bool
    """Whether everything in the app is ours; else what is below our prefixes, and not its own."""

    def find(self, path: str, method: str, *, websocket: bool) -> HTTPException | bool:
        """Whether the path is ours, or how it is missing."""
        routes = self.app.url_map.bind("localhost")
        try:
            endpoint, _ = routes.match(path, method=method, websocket=websocket)
        except RequestRedirect:
            return self._missing(path) if self._is_below(path) else self.whole
        except MethodNotAllowed as error:
            if not self._claims(path):
                return False
            if "//" in path.lstrip("/"):  # with another method it would be a redirect
                return self._missing(path)
            return self._wrong_method(path, method, error)
        except NotFound:
            return self._missing(path) if self._claims(path) else False
        except HTTPException:  # a websocket where there is none
            return self._claims(path)
        return self.whole or endpoint.rpartition(".")[0] in self._names

    @property
    def _names(self) -> set[str]:
        return {blueprint.name for blueprint in self.blueprints}

    @property
    def _prefixes(self) -> list[str]:
        prefixes = (blueprint.url_prefix for blueprint in self.blueprints)
        return list(dict.fromkeys(prefix for prefix in prefixes if prefix))

    def _claims(self, path: str) -> bool:
        return self.whole or self._is_below(path)

    def _is_below(self, path: str) -> bool:
        path = "/" + path.lstrip("/")
        if any(path == prefix or path.startswith(f"{prefix}/") for prefix in self._prefixes):
            return True
        return path in (path for path, _ in self._all())

    def _all(self) -> list[tuple[str, list[str]]]:
        """Our paths as they are documented, each with its methods."""
        found: dict[str, set[str]] = {}
        for rule in self.app.url_map.iter_rules():
            if rule.endpoint.rpartition(".")[0] in self._names:
                path = rule.rule.replace("<path:", "{").replace("<", "{").replace(">", "}")
                found.setdefault(path, set()).update(rule.methods or ())
        return [(path, _spoken(methods)) for path, methods in found.items()]

    def _missing(self, path: str) -> NotFound:
        found = dict(self._all())
        twins = {f"{prefix}{path}": path for prefix in self._prefixes for path in found}
        bare = {path for longer, path in twins.items() if longer in found}
        there = ", ".join(
            f"{'|'.join(methods)} {path}" for path, methods in found.items() if path not in bare
        )
        also = f"; what is below {' or '.join(self._prefixes)} also without it" if bare else ""
        why = next((f": {_NOT_HERE[part]}" for part in _parts(path) if part in _NOT_HERE), "")
        return NotFound(f"there is no {_cut(path)} here{why}; there are {there}{also}")

    def _wrong_method(self, path: str, method: str, error: MethodNotAllowed) -> MethodNotAllowed:
        valid = sorted(error.valid_methods or ())
        wanted = " or ".join(_spoken(valid))
        message = f"{_cut(path)} takes {wanted}, and not {method[:_MOST]}"
        return MethodNotAllowed(valid, message)


def _spoken(methods: set[str] | list[str]) -> list[str]:
    """Without those that come with another."""
    return sorted(set(methods) - {"HEAD", "OPTIONS"})


def _parts(path: str) -> list[str]:
    """The first part of a path, and what is behind a version."""
    return path.strip("/").split("/")[:2]


def _cut(path: str) -> str:
    return repr(path if len(path) <= _MOST else path[:_MOST] + "…")
