"""Where a request is, and what can be seen of it."""

from __future__ import annotations

from enum import Enum

from attrs import field, frozen


class GenerationState(Enum):
    """Where a request is; the values are those of ``/status``."""

    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    PAUSED = "paused"
    """It had to give its KV memory back, keeps its seat, and goes on later."""
    ENDED = "ended"


@frozen
class GenerationStatus:
    """What :meth:`Generation.status` returns."""

    id: str
    key: str = field(repr=False)
    """Whose request it is; a secret may be part of it."""
    state: GenerationState
    position: int | None
    """Place in the line; None when it does not wait."""
    prompt_tokens: int | None
    """None until the prompt was measured."""
    completion_tokens: int
    age_seconds: float
