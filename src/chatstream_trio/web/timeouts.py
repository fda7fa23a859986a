"""How long the phases of a request may take, as a body says it: ours, in every dialect."""

from __future__ import annotations

from chatstream_trio.request import Timeouts
from chatstream_trio.web.bodies.reading import Wire


class TimeoutsBody(Wire, frozen=True):
    """Ours: seconds that each phase may take."""

    queue: float | None = None
    first_token: float | None = None
    total: float | None = None

    def to_timeouts(self) -> Timeouts:
        """The same, for the service.

        Raises:
            InvalidRequest: One is out of range.
        """
        return Timeouts(self.queue, self.first_token, self.total)
