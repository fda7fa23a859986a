"""A streaming response body that says so when it fails.

It pulls from an iterator and starts no task, opens no channel and no scope: what the iterator
stands for is owned by the request (see :mod:`chatstream_trio.web.transport.connection`), not by its
body, which may never be started. This module does not know what the bytes mean.
"""

import logging
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from quart.wrappers.response import ResponseBody

__all__ = ["StreamBody"]

log = logging.getLogger("chatstream_trio.web")


class StreamBody(ResponseBody):
    """The chunks of an iterator, and at most one more that tells of its failure.

    ``chunks`` should be an object whose ``__anext__`` may be cancelled at any point. (An async
    generator that yields inside a nursery or a cancel scope is not.) When it raises an
    :exc:`Exception`, that is logged, ``on_error`` turns it into the last chunk, and the body ends
    as it should: the status 200 has long left, and the connection stays usable. Without
    ``on_error`` nothing can tell the client, so the exception goes on and cuts the response short,
    visibly.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        on_error: Callable[[Exception], bytes] | None = None,
    ) -> None:
        self._chunks = chunks
        self._on_error = on_error
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._ended = True

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            return await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self._ended = True
            log.exception("a streaming response failed")
            if self._on_error is None:
                raise
            return self._on_error(error)
