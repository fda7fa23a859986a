"""What a turn takes and what it gives: the contract between the engine and a model.

A :class:`Runner` is a plain synchronous object with one method, ``launch(turn)``, which gives what
finishes the turn. So the same runner can live in a thread, in another process or on another
machine: everything in a :class:`Turn` and a :class:`TurnResult` is a frozen value. It does not know
requests, seats, queues, text or time.

Rows. A stream has a *row*, a number from 0 to ``rows - 1`` that the engine hands out. What a runner
knows of a stream, it knows by row, and a :class:`Start` overwrites all of it.

Blocks. Keys and values are in *blocks* of the KV memory, each with room for ``block_size`` tokens.
Every turn says which blocks its rows have, so that a runner needs no memory of tables, and running
a turn again means the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Protocol, TypeAlias

from attrs import field, frozen, validators

from chatstream_trio.engine.choice.sampling import GREEDY as GREEDY
from chatstream_trio.engine.choice.sampling import Sampling as Sampling


class Pooling(Enum):
    """How the hidden states of a prompt, behind the model's last layer and norm, become one
    vector. The values are for whoever configures it."""

    MEAN = "mean"
    """Their mean, over all tokens."""
    LAST = "last"
    """That of the last token, which has seen all others."""


class Ability(Enum):
    """What a runner may be able to do besides saying tokens. The values are for messages."""

    LOGPROBS = "log-probabilities"
    PROMPT_LOGPROBS = "log-probabilities of a prompt"
    POOL = "embeddings"
    GRAMMAR = "grammars"
    ADAPTER = "adapters"


@frozen
class Start:
    """A stream begins in a row, or goes on there after it was preempted or lost its runner. Nothing
    of an earlier stream may shine through, but for the tokens that it shares with this one.

    The starts of a turn are carried out in their order, before anything is read, and each of them
    once, however often the turn is run: ``stream`` tells them apart.
    """

    row: int
    prompt: tuple[int, ...] = field(validator=validators.min_len(1))
    """Token ids. Position ``i`` of the row will hold ``prompt[i]``."""
    sampling: Sampling = GREEDY
    kept: int = 0
    """So many tokens of the prompt are in the KV memory already; less than all of them. The first
    :class:`Prefill` begins there."""
    source: int | None = None
    """The block that holds the last ``kept % block_size`` of them: the row's own (also None), or
    one whose beginning is copied to the row's own."""
    stream: int | None = None
    """A number that no other start has; None makes every start a new one."""
    said: int = 0
    """So many tokens at the end of ``prompt`` are what the stream has said before."""
    adapter: str | None = None
    """The adapter (LoRA) that the stream is computed with; None: the model as it is."""
    stop_token_ids: frozenset[int] = frozenset()
    """Tokens that end the stream: they may not come before :attr:`Sampling.min_tokens`."""
    pool: Pooling | None = None
    """The end of the prompt gives a vector instead of a token, and the stream is over."""
    prompt_logprobs: int | None = None
    """What is asked about the tokens of the prompt, as :attr:`Sampling.logprobs` asks it. Nothing
    of the prompt can be kept then."""

    @property
    def reads_all(self) -> bool:
        """Whether something is asked that is only known while a token is read."""
        return self.prompt_logprobs is not None or self.pool is Pooling.MEAN

    @property
    def needs(self) -> frozenset[Ability]:
        """What the runner must be able to do besides, to carry this out."""
        wanted = {
            Ability.GRAMMAR: self.sampling.grammar is not None,
            Ability.LOGPROBS: self.sampling.logprobs is not None,
            Ability.ADAPTER: self.adapter is not None,
            Ability.POOL: self.pool is not None,
            Ability.PROMPT_LOGPROBS: self.prompt_logprobs is not None,
        }
        return frozenset(ability for ability, is_wanted in wanted.items() if is_wanted)


@frozen
class Prefill:
    """Read ``prompt[start:stop]`` of a row into its KV cache.

    Chunks of one prompt come in order and without gaps. The chunk with ``stop == len(prompt)``
    ends the prefill and gives the stream's first token in the same turn.
    """

    row: int
    start: int
    stop: int


@frozen
class Decode:
    """Feed ``token`` at ``position`` (0-based) of a row and choose the token behind it."""

    row: int
    token: int
    position: int
    draft: tuple[int, ...] = ()
    """A guess at what comes next. It is fed behind ``token``, in the same forward pass; the step
    has the tokens that the runner would have chosen one by one, as far as they agree with the
    guess, and the first that does not agree or comes behind the whole guess."""


@frozen
class Turn:
    """One forward pass for everybody. No row appears both in ``prefill`` and in ``decode``.

    ``ended`` rows belong to nobody any more; one of them may be in ``started`` of the same turn.
    """

    ended: tuple[int, ...] = ()
    started: tuple[Start, ...] = ()
    prefill: tuple[Prefill, ...] = ()
    decode: tuple[Decode, ...] = ()
    tables: Mapping[int, tuple[int, ...]] = field(factory=dict)
    """The block tables: row -> its blocks. Position ``p`` is in number ``p // block_size`` of them.
    Rows may share blocks that nobody writes in this turn. A row that is not named here has one
    block, which has the row's own number."""

    def table(self, row: int) -> tuple[int, ...]:
        """The blocks of a row."""
        return self.tables.get(row, (row,))


@frozen
class Likelihood:
    """How likely a token was, and what would have been likelier. Natural logarithms."""

    logprob: float
    best: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens with their log-probabilities, the likeliest first."""
    rank: int | None = None
    """Where it stands among all tokens, 1 being the likeliest; of a prompt's tokens only."""


@frozen
class Step:
    """What one row got out of a turn: tokens, a vector, or a fault that ends this stream only.

    One token, but for a :class:`Decode` with a ``draft``, which may give up to one more than that.
    """

    row: int
    tokens: tuple[int, ...] = ()
    fault: str | None = None
    logprobs: tuple[Likelihood, ...] = ()
    """How likely each of the tokens was, where the stream asked for that."""
    pooled: tuple[float, ...] | None = None
    """The vector, where the stream asked for one. There are no tokens then."""
    prompt_logprobs: tuple[Likelihood, ...] = ()
    """How likely each token of the prompt was, but the first; with the stream's first token, where
    it asked for that."""


@frozen
class TurnResult:
    """One :class:`Step` for each decode and each *finished* prefill, in any order."""

    steps: tuple[Step, ...] = ()


@frozen
class RunnerInfo:
    """What the rest of the house may know about a model."""

    model: str
    """The id under which it is served."""
    device: str
    rows: int
    """Streams that can be active at once."""
    max_model_len: int
    """Tokens of prompt and answer together that one stream may have."""
    vocab_size: int
    eos_token_ids: frozenset[int] = frozenset()
    sampling: Sampling = Sampling()
    """The sampling where a request says nothing (from the model's generation config)."""
    pace: float = 0.0
    """Seconds that a turn lasts at least (scripted runners only)."""
    abilities: frozenset[Ability] = frozenset()
    """What it can do besides saying tokens. What it lacks, its check refuses."""
    computes_aside: bool = False
    """Whether its device computes a launched turn by itself (a GPU does), so that there is time
    meanwhile for what the last one gave. Others compute when a turn is finished."""
    notes: tuple[str, ...] = ()
    """Lines worth telling the operator at start: sizes, threads, choices made."""
    block_size: int = 0
    """Tokens that a block of the KV memory has room for. By default a block is a whole row."""
    blocks: int = 0
    """Blocks of the KV memory. One stream of ``max_model_len`` tokens fits at least."""
    vector_size: int = 0
    """Numbers in a vector, where it gives any."""

    def __attrs_post_init__(self) -> None:
        # Not as defaults that look at the others: who decodes a message knows no such thing.
        object.__setattr__(self, "block_size", self.block_size or self.max_model_len)
        object.__setattr__(self, "blocks", self.blocks or self.rows)
        if self.blocks * self.block_size < self.max_model_len:
            raise ValueError(
                f"{self.blocks} blocks of {self.block_size} tokens cannot hold a stream of"
                f" {self.max_model_len}"
            )


class RunnerLost(Exception):
    """Raised by a runner that cannot go on at all: the engine ends it and loads a new one."""


Finish: TypeAlias = Callable[[], TurnResult]
"""Waits for a turn that was launched. What :meth:`Runner.launch` may raise, it may raise."""


class Runner(Protocol):
    """One model. All calls come from one thread, never two at a time."""

    @property
    def info(self) -> RunnerInfo:
        """What the runner is; constant from construction on."""
        ...

    def launch(self, turn: Turn) -> Finish:
        """Begin one turn. It is finished before the next one is launched.

        All rows share one forward pass. What a row gets depends on that row alone (law 7 of the
        design). If a row's own numbers go wrong it gets a ``fault``, and the others their tokens.

        Raises:
            RunnerLost: It cannot go on; everything in its memory is lost.
            Exception: The turn as a whole failed. Then it has changed nothing that running it
                again, whole or row by row, would not overwrite.
        """
        ...
