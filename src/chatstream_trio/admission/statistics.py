"""What can be seen of the house."""

from __future__ import annotations

from attrs import frozen


@frozen
class AdmissionStatistics:
    """Who sits and who waits, at one moment."""

    active: int
    """Seats in use."""
    max_active: int
    waiting: int
    """Live requests in the waiting room."""
    max_waiting: int
    seat_seconds: float | None
    """How long a seat was held lately, on average; None before the first was given back."""
