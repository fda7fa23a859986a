"""Where a request is, and what can be seen of it."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

import trio
from attrs import field, frozen

from chatstream_trio.events import Queued, Usage
from chatstream_trio.generation.phases import Phases


class GenerationState(Enum):
    """Where a request is; the values are those of ``/status``."""

    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    PAUSED = "paused"
    """It had to give its KV memory back, keeps its seat, and goes on later."""
    ENDED = "ended"


class Seen(Protocol):
    """What of a generation can be seen."""

    id: str
    key: str
    state: GenerationState
    phases: Phases

    @property
    def usage(self) -> Usage:
        """Tokens so far."""

    def queued(self) -> Queued | None:
        """Place and expected wait at this moment; None when it does not wait."""


@frozen
class GenerationStatus:
    """The state of a request at one moment."""

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

    @classmethod
    def of(cls, generation: Seen) -> GenerationStatus:
        """That of this moment."""
        queued, usage = generation.queued(), generation.usage
        return cls(
            id=generation.id,
            key=generation.key,
            state=generation.state,
            position=queued.position if queued else None,
            prompt_tokens=usage.prompt_tokens or None,
            completion_tokens=usage.completion_tokens,
            age_seconds=trio.current_time() - generation.phases.arrived,
        )
