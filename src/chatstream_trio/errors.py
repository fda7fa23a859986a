"""One tree of errors. Each says its cause and whose fault it is; none knows HTTP.

The web layer gives every class its status in one table (``web/errors.py``); the console turns
them into one line. An error that a client may see has a ``code`` that programs can compare.
"""

from __future__ import annotations

from typing import ClassVar


class ChatStreamError(Exception):
    """The root: everything that this package raises on purpose.

    Args:
        message: One sentence for a person.
        param: The field of the request or the setting that is wrong, where there is one.
    """

    code: ClassVar[str] = "server_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


# ---- The caller's fault: the same request will fail again.


class InvalidRequest(ChatStreamError):
    """A field is missing, unknown, ill-typed or out of range; ``param`` names it."""

    code = "invalid_value"


class UnsupportedField(InvalidRequest):
    """A known field asks for something that this server cannot do."""

    code = "unsupported_parameter"


class UnsupportedEncoding(InvalidRequest):
    """The body is packed in a way that this server cannot unpack."""

    code = "unsupported_encoding"


class ContextTooLong(InvalidRequest):
    """The prompt leaves no room for an answer in the model's context."""

    code = "context_length_exceeded"


class NotAuthenticated(ChatStreamError):
    """No key was presented, or one that is not configured."""

    code = "invalid_api_key"


class HostNotAllowed(ChatStreamError):
    """The request came by a name that is none of the server's; see ``--allowed-host``."""

    code = "host_not_allowed"


class OriginNotAllowed(ChatStreamError):
    """The request came from a web page that may not use the server; see ``--cors-origin``."""

    code = "origin_not_allowed"


class ModelNotServed(ChatStreamError):
    """The request names a model that this server does not serve."""

    code = "model_not_found"


class IdInUse(ChatStreamError):
    """Another live request has the id that the client chose."""

    code = "id_in_use"


class StreamNotFound(ChatStreamError):
    """No live or recently ended request has this id, or it is someone else's."""

    code = "stream_not_found"


# ---- Nobody's fault: the house is full, closing, or someone changed their mind.


class QueueFull(ChatStreamError):
    """Seats and waiting room are full. ``retry_after`` is in seconds."""

    code = "queue_full"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyForKey(QueueFull):
    """The house has room, but this client has as many requests in it as one may have."""

    code = "too_many_for_key"


class StreamCancelled(ChatStreamError):
    """The request was cancelled by its id."""

    code = "cancelled"


class TimedOut(ChatStreamError):
    """A phase of the request took longer than the caller, or the server, allows."""

    code = "timeout"


class QueueTimeout(TimedOut):
    """No seat in time."""

    code = "queue_timeout"


class FirstTokenTimeout(TimedOut):
    """A seat, and no first token in time."""

    code = "first_token_timeout"


class TotalTimeout(TimedOut):
    """No complete answer in time."""

    code = "total_timeout"


class Unavailable(ChatStreamError):
    """The server cannot serve at this moment; another try may go through."""

    code = "unavailable"


class Loading(Unavailable):
    """The model is still being loaded."""

    code = "loading"


class Draining(Unavailable):
    """The server is shutting down: it finishes what it has and takes nothing new."""

    code = "draining"


# ---- The server's fault.


class EngineFailed(Unavailable):
    """The engine's thread ended or hangs; all streams were let go."""

    code = "failed"


class StreamFault(ChatStreamError):
    """One stream broke (a NaN, an exception); no other stream was touched."""

    code = "stream_fault"


# ---- The operator's fault: these end the program at its start.


class SettingsError(ChatStreamError):
    """A flag, variable or key of the settings is wrong, or a port cannot be had."""

    code = "bad_setting"


class ModelNotFound(SettingsError):
    """The model's path does not exist, or the hub does not have the name."""


class ModelNotLoaded(ChatStreamError):
    """The model is there, and loading it failed."""

    code = "model_not_loaded"


class ModelNotSupported(ModelNotLoaded):
    """The model was read, and the engine cannot serve its architecture; the message says why."""

    code = "model_not_supported"


def first_line(error: BaseException) -> str:
    """The first line of an error that says something, with its class where that is all it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def one_line(error: BaseException | str, most: int = 300) -> str:
    """The message of an exception on one line, for a person."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 1]}…"
