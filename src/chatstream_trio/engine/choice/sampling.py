"""How the next token of one stream is chosen, as plain values: part of the contract of
:mod:`chatstream_trio.engine.runner`, and had from there.

It does not know how a runner does that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import Attribute, Factory, field, frozen, validators

from chatstream_trio.errors import InvalidRequest
from chatstream_trio.grammars.grammar import Grammar


def _between(low: float, high: float) -> Callable[[Any, Attribute[Any], float], None]:
    """A validator: a finite number in ``[low, high]``, else :class:`InvalidRequest`."""

    def check(_: object, attribute: Attribute[Any], value: float) -> None:
        if not low <= value <= high:  # also refuses NaN
            name = attribute.name
            raise InvalidRequest(f"{name} must be between {low:g} and {high:g}", param=name)

    return check


def _check_bias(_: object, __: object, value: Mapping[int, float]) -> None:
    if not all(-100 <= bias <= 100 for bias in value.values()):
        raise InvalidRequest("logit_bias values must be between -100 and 100", param="logit_bias")


@frozen
class Sampling:
    """How the next token of one stream is chosen from its logits.

    The order is the field's usual one: logit bias, repetition penalty (over prompt and answer, as
    in the CTRL paper, arXiv:1909.05858), presence and frequency penalties (over the answer, as
    OpenAI defines them), what may not come at all (``min_tokens``, ``allowed_token_ids``,
    ``bad_words``), temperature, top-k, top-p (nucleus, arXiv:1904.09751), min-p
    (arXiv:2407.01082), and then the inverse of the cumulative distribution at one uniform number
    that is a function of ``seed`` and the position alone.
    """

    temperature: float = field(default=1.0, validator=_between(0, 2))
    """0 is greedy: the most likely token, after bias and penalties."""
    top_p: float = field(default=1.0, validator=_between(0, 1))
    top_k: int = field(default=0, validator=_between(0, 2**31 - 1))
    """So many of the likeliest tokens are kept; 0 keeps all."""
    min_p: float = field(default=0.0, validator=_between(0, 1))
    repetition_penalty: float = field(default=1.0, validator=_between(0.01, 100))
    presence_penalty: float = field(default=0.0, validator=_between(-2, 2))
    frequency_penalty: float = field(default=0.0, validator=_between(-2, 2))
    logit_bias: Mapping[int, float] = field(default=Factory(dict), validator=_check_bias)
    """Token id -> what is added to its logit. Ids outside of the vocabulary are refused earlier."""
    seed: int = field(default=0, validator=_between(-(2**63), 2**63 - 1))
    min_tokens: int = field(default=0, validator=_between(0, 2**31 - 1))
    """Tokens of the answer before the first that may end it."""
    allowed_token_ids: tuple[int, ...] | None = None
    """Only these may come; None: all."""
    bad_words: tuple[tuple[int, ...], ...] = ()
    """Token ids, in order, that the answer may not have in it: the last of them does not come where
    the others were just said."""
    grammar: Grammar | None = None
    """What the answer must be. How far the answer is in it, the runner knows by row and position,
    so that a turn that runs again changes nothing."""
    logprobs: int | None = field(
        default=None, validator=validators.optional(_between(0, 2**31 - 1))
    )
    """How many of the likeliest tokens are named at each position, with their log-probabilities;
    0 gives that of the chosen token alone. None: not asked for."""


GREEDY = Sampling(temperature=0.0)
