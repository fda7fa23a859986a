"""TLS: the server's certificate, and the handshake with a client that may be anybody.

Trio's ``SSLStream`` does the work. This module knows no HTTP, but for one sentence.
"""

import ssl
from contextlib import suppress
from pathlib import Path

import trio
from attrs import define, field

from chatstream_trio.web.transport.wire import GONE, Wire, turn_away

__all__ = ["Certificate", "tls_context"]

_SPEAK_TLS = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 33\r\n\r\n"
    b"this port speaks https, not http\n"
)


def tls_context(certfile: str | Path, keyfile: str | Path | None = None) -> ssl.SSLContext:
    """Make what :func:`~chatstream_trio.web.transport.server.serve` takes as ``tls``.

    Call it before anything else is started: a wrong file should cost nothing.

    Args:
        certfile: The certificate, followed by the chain up to its authority, as PEM.
        keyfile: Its private key, as PEM and not encrypted. Default: in ``certfile``, too.

    Raises:
        OSError: A file cannot be read; ``filename`` says which.
        ValueError: What is in them is no certificate with its key.
    """
    for path in (certfile, keyfile or certfile):
        Path(path).read_bytes()  # ssl's own error does not say which file it was
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # HTTP/2 forbids the others of TLS 1.2
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
    except ssl.SSLError as error:
        raise ValueError(_complaint(error, certfile, keyfile)) from None
    return context


@define
class Certificate:
    """A certificate and its key in files that may be replaced while a server runs.

    Raises:
        OSError, ValueError: As :func:`tls_context`.
    """

    certfile: str | Path
    keyfile: str | Path | None = None
    context: ssl.SSLContext = field(init=False)
    """What new connections get; those that are open keep what they had."""

    def __attrs_post_init__(self) -> None:
        self.read_again()

    def read_again(self) -> None:
        """Take what is in the files now. If they are no good, nothing changes.

        Raises:
            OSError, ValueError: As :func:`tls_context`.
        """
        self.context = tls_context(self.certfile, self.keyfile)


def _no_password() -> str:
    """Refuse; without this OpenSSL would ask at the terminal."""
    raise ValueError("the TLS key is encrypted; only a key without a passphrase can be used")


def _complaint(error: ssl.SSLError, certfile: str | Path, keyfile: str | Path | None) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the TLS key in {keyfile or certfile} is not that of the certificate in {certfile}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certfile)
    except ssl.SSLError:
        return f"{certfile} holds no certificate in PEM format"
    return f"{keyfile or certfile} holds no private key in PEM format for the certificate"


async def shake_hands(stream: trio.SSLStream[Wire], patience: float) -> bool:
    """Do the handshake; say whether there is now somebody to talk to."""
    try:
        await stream.do_handshake()
    except GONE as error:
        if getattr(error.__cause__, "reason", None) == "HTTP_REQUEST":
            await turn_away(stream.transport_stream, _SPEAK_TLS, patience)
        return False
    return True


async def close_notify(stream: trio.SSLStream[Wire]) -> None:
    """Tell the peer that this was all, and wait for it to say so, too.

    Without it a body that is delimited by the end of the connection looks truncated.
    """
    with suppress(*GONE):
        await stream.unwrap()
