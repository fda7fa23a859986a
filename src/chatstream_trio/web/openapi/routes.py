"""``/openapi.json``, and ``/docs``: the same as a page that tries the endpoints out.

The page is Swagger UI, which comes with the package: nothing is loaded from anywhere else, and the
browser is told to see to it. All is made once, in a thread, when it is first asked for.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources

import trio
from attrs import define, field, frozen
from quart import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from chatstream_trio.web.errors import handle_error
from chatstream_trio.web.openapi.document import openapi
from chatstream_trio.web.openapi.endpoint import Api
from chatstream_trio.web.sse import to_json

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
"""What the page may do: run what comes from here, and ask only here."""
HEADERS = {
    "Cache-Control": "no-cache",  # ask again; with its tag that costs nothing
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
}
_FILES = {
    "docs.html": "text/html; charset=utf-8",
    "start.js": "text/javascript; charset=utf-8",
    "swagger-ui/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui/swagger-ui.css": "text/css; charset=utf-8",
}


@frozen
class Asset:
    """Something that is sent as it is."""

    body: bytes
    packed: bytes
    content_type: str
    tag: str

    @classmethod
    def of(cls, body: bytes, content_type: str) -> Asset:
        """Packed once, for all who can unpack it."""
        tag = hashlib.sha256(body).hexdigest()[:32]
        return cls(body, gzip.compress(body, 9, mtime=0), content_type, tag)


@define
class Assets:
    """All of them, by name; made when one is first asked for."""

    make: Callable[[], Mapping[str, Asset]]
    _made: Mapping[str, Asset] | None = field(default=None, init=False)
    _lock: trio.Lock = field(factory=trio.Lock, init=False)

    async def get(self, name: str) -> Asset:
        """One of them.

        Raises:
            NotFound: There is none of this name.
        """
        async with self._lock:
            if self._made is None:
                self._made = await trio.to_thread.run_sync(self.make)
        if name not in self._made:
            raise NotFound("the page has no such part")
        return self._made[name]


def described(apis: Sequence[Api], *, keys: bool) -> Blueprint:
    """The paths that tell of all others. They want no key: what they say is in the manual.

    Args:
        apis: All that the app serves.
        keys: Whether keys are configured.
    """

    def make() -> Mapping[str, Asset]:
        here = resources.files(__package__) / "static"
        document = Asset.of(to_json(openapi(apis, keys=keys)), "application/json")
        files = {
            name.rpartition("/")[2]: Asset.of(here.joinpath(name).read_bytes(), kind)
            for name, kind in _FILES.items()
        }
        return {"openapi.json": document, **files}

    assets = Assets(make)
    blueprint = Blueprint("chatstream_openapi", __name__)
    blueprint.register_error_handler(Exception, handle_error)

    @blueprint.get("/openapi.json")
    async def document() -> Response:
        return await _send(await assets.get("openapi.json"))

    @blueprint.get("/docs")
    async def docs() -> Response:
        response = await _send(await assets.get("docs.html"))
        response.headers["Content-Security-Policy"] = POLICY
        return response

    @blueprint.get("/docs/<name>")
    async def part(name: str) -> Response:
        return await _send(await assets.get(name))

    return blueprint


async def _send(asset: Asset) -> Response:
    packs = request.accept_encodings.quality("gzip") > 0
    response = Response(asset.packed if packs else asset.body, content_type=asset.content_type)
    response.headers.update(HEADERS)
    if packs:
        response.headers["Content-Encoding"] = "gzip"
    response.set_etag(f"{asset.tag}-gzip" if packs else asset.tag)
    await response.make_conditional(request)
    return response
