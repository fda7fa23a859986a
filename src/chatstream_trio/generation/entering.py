"""Several requests into the line at once, or none of them. Synchronous: nobody comes between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from chatstream_trio.admission.admission import Ticket
from chatstream_trio.generation.generation import Generation
from chatstream_trio.request import Request


class Make(Protocol):
    """Makes the generation of a request, whose leader may have its prompt before it."""

    def __call__(self, request: Request, *, leader: Generation | None) -> Generation: ...


def enter_all(
    requests: Sequence[Request], choices: int, make: Make, enter: Callable[..., Ticket]
) -> tuple[Generation, ...]:
    """A generation for each choice of each request, in order, every one with a ticket.

    Args:
        requests: What is asked.
        choices: So many answers to each.
        make: See :class:`Make`.
        enter: Takes a ticket: :meth:`Admission.enter`, and what it raises is raised.
    """
    entered: list[Generation] = []
    try:
        for request in requests:
            leader: Generation | None = None
            for index in range(choices):
                generation = make(request.choice(index), leader=leader)
                generation.take_ticket(enter)
                entered.append(generation)
                leader = leader or generation
    except BaseException:
        for generation in entered:
            generation.close()
        raise
    return tuple(entered)
