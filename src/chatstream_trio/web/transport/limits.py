"""How much one client may take from the server; knows nothing of how that is enforced."""

import attrs

__all__ = ["ServerLimits"]


@attrs.frozen
class ServerLimits:
    """How much a client may take and how long it may do nothing; all times in seconds."""

    max_connections: int = 1024
    #: without any progress: a slow reader lives, one that has stopped does not
    write_timeout: float = 30.0
    #: from connecting until the first request begins; never longer than an idle connection is kept
    first_request_timeout: float = 10.0
    #: between two requests, as HTTP/1 replies announce it; see :attr:`kept_alive`
    keep_alive_timeout: float = 65.0
    #: from the first byte of a request until its headers are complete
    header_timeout: float = 10.0
    #: for a TLS handshake
    handshake_timeout: float = 10.0
    #: at shutdown, for requests that are being answered
    graceful_timeout: float = 1.0
    #: between two looks for peers that have gone behind bytes which nobody reads yet
    poll_interval: float = 0.5
    #: for the peer to close its side after we closed ours; to close at once may destroy the answer
    linger_timeout: float = 1.0
    #: of a request's body while its handler does not read it (in an app that has Quart's
    #: ``MAX_CONTENT_LENGTH`` at ``None``); a client that says it would send more, and waits to be
    #: asked for it, is not asked
    max_body_bytes: int = 4 * 2**20

    @property
    def kept_alive(self) -> float:
        """How long an idle connection really is kept: a little longer than is announced.

        A client that uses one until the last second finds it open, although its bytes take a while
        and its clock is not ours.
        """
        return self.keep_alive_timeout + min(2.0, self.keep_alive_timeout / 10)
