"""Every setting, once: a frozen class, and the only reader of flags, environment and TOML.

A setting is a flag ``--max-active``, a variable ``CHATSTREAM_MAX_ACTIVE`` and a TOML key
``max_active``; flag beats variable beats file. Ranges are checked here, whoever makes a
:class:`Settings`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import Attribute, field, frozen
from attrs.validators import optional

from chatstream_trio.engine.budget import Budget
from chatstream_trio.errors import SettingsError
from chatstream_trio.request import Timeouts
from chatstream_trio.text.answers.formats import FORMATS
from chatstream_trio.text.answers.reasoning import MARKS


def in_range(
    low: float, high: float = float("inf")
) -> Callable[[Any, Attribute[Any], float | None], None]:
    def check(_: object, attribute: Attribute[Any], value: float | None) -> None:
        if value is not None and not low <= value <= high:
            wanted = f"at least {low}" if high == float("inf") else f"from {low} to {high}"
            raise SettingsError(f"{attribute.name} must be {wanted}", param=attribute.name)

    return check


def _one_of(*patterns: str) -> Callable[[Any, Attribute[Any], str], None]:
    def check(_: object, attribute: Attribute[Any], value: str) -> None:
        if not any(re.fullmatch(pattern, value) for pattern in patterns):
            choices = ", ".join(pattern.replace(r"\d+", "N") for pattern in patterns)
            raise SettingsError(
                f"{attribute.name} must be one of {choices}; it is {value!r}",
                param=attribute.name,
            )

    return check


def _no_empty_name(_: object, attribute: Attribute[Any], value: tuple[str, ...]) -> None:
    if not all(value):
        raise SettingsError(f"{attribute.name} must not be empty", param=attribute.name)


def _memory(_: object, __: Attribute[Any], value: str) -> None:
    Budget.parse(value)


@frozen
class ApiKey:
    """A configured key: what a client presents, and what it may do with it."""

    secret: str = field(repr=False)
    """The key itself, in ASCII: what stands behind ``Bearer``."""
    weight: float = 1.0
    """Share of the seats, relative to the other keys that wait."""
    admin: bool = False
    """Whether it may see and cancel the requests of others."""

    @classmethod
    def parse(cls, text: str, setting: str) -> ApiKey:
        """``KEY`` or ``KEY=WEIGHT``; what follows the last "=" is a weight if it is a number.

        Raises:
            SettingsError: It is neither; ``param`` is the setting, and the key itself is not said.
        """
        name, _, last = text.rpartition("=")
        try:
            secret, weight = (name, float(last)) if name else (text, 1.0)
        except ValueError:
            secret, weight = text, 1.0
        if not secret or not secret.isascii() or not 0.001 <= weight <= 1000:
            raise SettingsError(
                f"{setting} must be KEY or KEY=WEIGHT, in ASCII, with a weight from 0.001 to 1000",
                param=setting,
            )
        return cls(secret, weight, admin=setting == "admin_key")

    @property
    def client(self) -> str:
        """What a client with this key is called in the lines: the ``key`` of its requests."""
        return f"key {self.secret}"


@frozen(kw_only=True)
class Settings:
    """How a server behaves.

    Raises:
        SettingsError: A value is out of range; ``param`` names it.
    """

    model: str | None = None
    """Folder or hub name of the model; "scripted" for a server without one. Default: the demo."""

    served_model_name: tuple[str, ...] = field(
        default=(), converter=tuple, validator=_no_empty_name
    )
    """Name under which clients ask for the model, or * for any. Repeat it for more: the first is
    what replies say. Default: the model's own, or its folder's."""

    embedding_model: str | None = None
    """Folder or hub name of a second, small model for /v1/embeddings, such as one of
    sentence-transformers. Default: embeddings are the served model's own."""

    pooling: str = field(default="last", validator=_one_of("mean", "last"))
    """How the served model's hidden states become an embedding: that of the last token, or their
    mean. A second model's own files say it."""

    host: str = "127.0.0.1"
    """Address or name to listen on; localhost is that of both families."""

    port: int = field(default=8000, validator=in_range(0, 65535))
    """Port to listen on; 0 picks a free one."""

    device: str = field(
        default="auto", validator=_one_of("auto", "cpu", "cuda", r"cuda:\d+", "mps")
    )
    """Where the model runs: auto, cpu, cuda, cuda:N or mps."""

    dtype: str = field(default="auto", validator=_one_of("auto", "float32", "bfloat16", "float16"))
    """Precision of the weights: auto (as saved), float32, bfloat16 or float16."""

    max_active: int = field(default=8, validator=in_range(1, 4096))
    """Seats: streams that generate at once."""

    max_waiting: int = field(default=64, validator=in_range(0, 1_000_000))
    """Places in the waiting room; who comes after that is refused."""

    max_model_len: int | None = field(default=None, validator=in_range(2))
    """Tokens of prompt and answer together. Default: the model's context, if memory allows."""

    kv_memory: str = field(default="50%", validator=_memory)
    """Memory for keys and values, such as 2GiB or 500MB, or a share of what is free once the model
    is loaded, such as 50%."""

    drain_seconds: float = field(default=10.0, validator=in_range(0, 86_400))
    """How long running streams may finish after SIGTERM."""

    prefill_chunk: int = field(default=256, validator=in_range(1, 1_000_000))
    """Prompt tokens that are read in one turn, beside the others' steps."""

    speculate: int = field(default=0, validator=in_range(0, 64))
    """Tokens that are guessed ahead from a stream's own text, and checked in one step; the answers
    stay the same. 0 is off; 8 suits summaries, quotations and code."""

    batch_invariant: bool = False
    """What a stream says then depends on nobody else to the last bit, also in half precision: every
    turn computes as many tokens as max_active and prefill_chunk allow, padded."""

    threads: int | None = field(default=None, validator=in_range(1, 1024))
    """Compute threads of a model on the CPU. Default: chosen from the cores at hand."""

    compile: bool = False
    """Compile a model on the CPU for this machine, and serve it so if its turns are faster then:
    both ways are measured, once. It needs a C++ compiler, and takes some minutes the first time."""

    quantize: str | None = field(default=None, validator=optional(_one_of("int8", "int4")))
    """Keep the weights of a model on the CPU in fewer bits, int8 or int4: less memory, and faster
    together with compile. Answers change a little."""

    cache_dir: str | None = None
    """Folder in which compiled models are kept. Default: chatstream-trio in the user's caches."""

    chunks_per_second: int = field(default=1000, validator=in_range(1))
    """Pieces of text that all streams together send in a second. Where turns give tokens faster,
    some go together; but each stream sends 10 a second, if it has so many, and one that is alone
    sends every token by itself."""

    turn_timeout: float = field(default=60.0, validator=in_range(0.1))
    """Seconds after which a turn that does not end makes /health say "failed"."""

    trust_special_tokens: bool = False
    """Take what looks like a control token in a message for one: whoever may ask can then forge the
    other side's turns. Off, it is text."""

    tool_parser: str = field(default="auto", validator=_one_of("auto", "none", *FORMATS))
    """How calls of tools are found in what the model says. auto: by what its tokenizer and its chat
    template say. none: they are text."""

    reasoning_parser: str = field(
        default="auto", validator=_one_of("auto", "none", "gpt_oss", "openai", *MARKS)
    )
    """How reasoning is found in what the model says. auto: by what its tokenizer and its chat
    template say. none: it is text."""

    unknown_fields: str = field(default="warn", validator=_one_of("refuse", "warn"))
    """What becomes of fields in a request that nobody knows: warn passes over them and names them,
    once in the log and in the header X-Ignored-Fields of the reply; refuse is a 400. What would
    change the answer and cannot be done is refused in any case."""

    client_key: str = field(default="auto", validator=_one_of("auto", "bearer", "address"))
    """Who a client is, without configured keys: auto, bearer or address. Seats are dealt fairly
    among clients. auto is the address, and on loopback a bearer token where there is one."""

    trust_proxy: int = field(default=0, validator=in_range(0, 16))
    """Proxies in front of this server that are believed when they say whom they serve."""

    proxy_header: str = field(
        default="x-forwarded-for", validator=_one_of("x-forwarded-for", "forwarded")
    )
    """The header in which they say it: x-forwarded-for or forwarded. The other is never looked at,
    as a proxy passes it on as the client wrote it."""

    api_key: tuple[str, ...] = field(default=(), converter=tuple, repr=False)
    """A key that may use the server, or KEY=WEIGHT for another share of the seats than 1. Repeat it
    for more. Without any, everybody may."""

    admin_key: tuple[str, ...] = field(default=(), converter=tuple, repr=False)
    """A key that may also see and cancel the requests of others."""

    allowed_host: tuple[str, ...] = field(default=(), converter=tuple)
    """A name by which the server is reached, such as that of a proxy in front, or * for any. Repeat
    it for more. On loopback, or once there is one, a request by another name than these, a loopback
    one, that of host or the address that it came to is refused."""

    cors_origin: tuple[str, ...] = field(default=(), converter=tuple)
    """Origin of a web page that may use the server, such as http://localhost:3000, or * for any.
    Repeat it for more. Other pages than the server's own are refused."""

    max_active_per_key: int | None = field(default=None, validator=in_range(1))
    """Seats that one client may hold at once. Default: all."""

    max_waiting_per_key: int | None = field(default=None, validator=in_range(0))
    """Places that one client may fill. Default: seven eighths of the waiting room."""

    queue_timeout: float | None = field(default=None, validator=in_range(0.001, 86_400))
    """Seconds that a request may wait for its seat. Default: as long as it takes."""

    first_token_timeout: float | None = field(default=None, validator=in_range(0.001, 86_400))
    """Seconds from its seat to its first token."""

    total_timeout: float | None = field(default=None, validator=in_range(0.001, 86_400))
    """Seconds from its arrival to the end of its answer."""

    certfile: str | None = None
    """Certificate with its chain, as PEM: speak HTTPS, with HTTP/2."""

    keyfile: str | None = None
    """The certificate's private key, as PEM. Default: in the certificate's file."""

    max_body_bytes: int = field(default=4 * 2**20, validator=in_range(1024))
    """Largest request body."""

    max_connections: int = field(default=1024, validator=in_range(1))
    """Open connections at once. Fewer where the system lets the process open too few files."""

    keep_alive: float = field(default=65.0, validator=in_range(1, 86_400))
    """Seconds for which an idle connection may be used again, as replies say it. A proxy in front
    should keep its own for less."""

    write_timeout: float = field(default=30.0, validator=in_range(0.1))
    """Seconds for which a client may read nothing at all before it is cut off."""

    def __attrs_post_init__(self) -> None:
        _ = self.keys  # one that is malformed is a wrong setting, and known at once

    @cached_property
    def keys(self) -> tuple[ApiKey, ...]:
        """The configured keys; an admin's first, so that what is both is an admin's."""
        return (
            *(ApiKey.parse(text, "admin_key") for text in self.admin_key),
            *(ApiKey.parse(text, "api_key") for text in self.api_key),
        )

    @property
    def compiled_folder(self) -> Path:
        """Where compiled models are kept."""
        if self.cache_dir is not None:
            return Path(self.cache_dir).expanduser() / "compiled"
        caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(caches).expanduser() / "chatstream-trio" / "compiled"

    @property
    def timeouts(self) -> Timeouts:
        """The ceilings of all requests."""
        return Timeouts(self.queue_timeout, self.first_token_timeout, self.total_timeout)
