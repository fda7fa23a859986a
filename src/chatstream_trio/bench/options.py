"""What is measured, and for how long. Ranges are checked here, whoever makes the options."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

from chatstream_trio.bench.http import Address
from chatstream_trio.errors import SettingsError
from chatstream_trio.settings import in_range

DEFAULT_SECONDS = 20.0


@frozen
class BenchOptions:
    """A load, and the server that it is put on.

    Closed loop (``users``): each user sends its next request when the last one is over. Open loop
    (``rate``): requests come as a Poisson process, whatever became of those before them. One user
    is the default.

    Raises:
        SettingsError: A value is out of range, or two exclude each other; ``param`` names it.
    """

    url: str = "http://127.0.0.1:8000"
    """Where the server is, with or without /v1."""

    users: int | None = field(default=None, kw_only=True, validator=in_range(1, 100_000))
    """Closed loop: this many users, who send their next request when the last one is over."""

    rate: float | None = field(default=None, kw_only=True, validator=in_range(0.001, 100_000))
    """Open loop: requests per second, as a Poisson process."""

    requests: int | None = field(default=None, kw_only=True, validator=in_range(1))
    """How many requests to send in all."""

    seconds: float | None = field(default=None, kw_only=True, validator=in_range(0.01))
    """For how long to send requests; those begun are read to their end. Default: 20."""

    warmup: int = field(default=1, kw_only=True, validator=in_range(0))
    """Requests that each user sends first, and that do not count (open loop: one user)."""

    max_tokens: int = field(default=64, kw_only=True, validator=in_range(1))
    """The longest answer."""

    prompt_tokens: int = field(default=32, kw_only=True, validator=in_range(1, 1_000_000))
    """Words, and so about as many tokens, of a made-up prompt; no two prompts are alike."""

    prompts: Path | None = field(default=None, kw_only=True)
    """A file with a prompt in each line, which are taken in turn, instead of made-up ones."""

    model: str | None = field(default=None, kw_only=True)
    """Which model to ask for. Default: the first that the server names."""

    api_key: str | None = field(default=None, kw_only=True, repr=False)
    """Sent as bearer token."""

    temperature: float | None = field(default=None, kw_only=True, validator=in_range(0))
    """0 is the most likely answer. Default: the model's own."""

    ignore_eos: bool = field(default=False, kw_only=True)
    """Ask for answers of exactly max_tokens, of a server that accepts the field ignore_eos."""

    include_usage: bool = field(default=True, kw_only=True)
    """Ask for the server's own count of tokens (stream_options.include_usage)."""

    timeout: float = field(default=300.0, kw_only=True, validator=in_range(0.001))
    """Seconds after which a request is given up."""

    seed: int = field(default=0, kw_only=True)
    """Of arrivals and made-up prompts."""

    def __attrs_post_init__(self) -> None:
        for one, other in (("users", "rate"), ("requests", "seconds")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise SettingsError(f"{one} and {other} exclude each other", param=other)
        try:
            Address.of(self.url)
        except ValueError as error:
            raise SettingsError(f"url: {error}", param="url") from None

    @property
    def clients(self) -> int:
        """Users of a closed loop; 1 in an open one, where nobody waits for anybody."""
        return self.users or 1

    @property
    def sending_seconds(self) -> float | None:
        """For how long requests are sent; None where their number is given."""
        if self.requests is not None:
            return None
        return DEFAULT_SECONDS if self.seconds is None else self.seconds
