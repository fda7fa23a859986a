"""The service: what runs the house, and gives out requests as scopes.

This is the public Python API. It does not know HTTP.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import trio
from attrs import evolve

from chatstream_trio.engine.runner import Ability, RunnerInfo
from chatstream_trio.errors import (
    Draining,
    InvalidRequest,
    SettingsError,
)
from chatstream_trio.generation.ended import Ended
from chatstream_trio.generation.entering import enter_all
from chatstream_trio.generation.generation import Generation
from chatstream_trio.house import Names
from chatstream_trio.models import Model, Progress, find_embedder, find_model
from chatstream_trio.progress import loading_bar
from chatstream_trio.request import Request
from chatstream_trio.settings import Settings
from chatstream_trio.text.bad_words import encode_bad_words
from chatstream_trio.text.codec import Codec, Prompt
from chatstream_trio.vectors.vectors import SEATS, Vectors

if TYPE_CHECKING:
    from chatstream_trio.grammars.compiler import Grammars


class ChatStream(Vectors):
    """A model, its engine, its seats and its waiting room. Make one with :meth:`open`."""

    # ---- Life

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings = Settings(),
        *,
        model: Model | None = None,
        embedder: Model | None = None,
        wait: bool = True,
        progress: Progress | None = None,
        weights: Mapping[str, float] | None = None,
        threaded: bool = True,
    ) -> AsyncIterator[ChatStream]:
        """Load a model and serve it until the block ends; then end everything that was started.

        Args:
            settings: Of these, the ones about the model, the house and the engine count.
            model: Serve this one instead of what ``settings.model`` names.
            embedder: The same for ``settings.embedding_model``.
            wait: False gives the service at once, while it loads: requests raise ``Loading``.
            progress: Told how much is loaded. Without it, a progress bar is
                shown if stderr is a terminal.
            weights: For keys that are your own (see :meth:`generate`): key -> its share of the
                seats, relative to the other keys that wait; 1 where it is not named. Those of the
                settings' keys are known.
            threaded: False runs the turns in a task, in the event loop's (maybe virtual) time:
                for tests with a scripted runner.

        Raises:
            ModelNotFound, ModelNotLoaded, ModelNotSupported: with ``wait``, or at once.
        """
        model = model or find_model(settings)
        embedder = embedder or find_embedder(settings, SEATS)
        _check_names(settings, model, embedder)
        bar = nullcontext(progress) if progress else loading_bar(model.id)
        failure: Exception | None = None
        with bar as tell:
            async with trio.open_nursery() as nursery:
                chat = cls(settings, model, tell, nursery, threaded=threaded, weights=weights)
                if embedder is not None:
                    chat._add(embedder, threaded=threaded, weights=weights)
                nursery.start_soon(chat._run)
                nursery.start_soon(chat._requests.tell_silence)
                try:
                    if wait:
                        await chat.ready()
                    yield chat
                except Exception as error:
                    failure = error  # the block's own: raised bare, outside of the nursery
                finally:
                    chat.cut()
                    nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def ready(self) -> RunnerInfo:
        """Wait until the model is loaded, and the second one, if there is one.

        Raises:
            ModelNotFound, ModelNotLoaded, ModelNotSupported: It cannot be.
            SettingsError: The second one cannot be.
        """
        await self._keeper.ready()
        if self.embedder is not None:
            await self.embedder._keeper.ready()
        return self._engine.info

    # ---- Requests

    @asynccontextmanager
    async def generate(
        self, request: Request, *, id: str | None = None, key: str = ""
    ) -> AsyncIterator[Generation]:
        """One request as a scope: enter it and its place is taken, leave it and all is given back.

        Entering takes the ticket first, then measures the prompt while the ticket keeps its place.
        The value is the async iterator of its events.

        Args:
            request: What is asked.
            id: Under which it can be cancelled; by default a fresh one, of 24 hex digits.
            key: Whose request it is: seats are dealt fairly among keys.

        Raises:
            Loading, Draining, EngineFailed: This service takes no requests at this moment.
            IdInUse: Another live request has the id.
            QueueFull, TooManyForKey: All seats and places are taken, or all that a key may have.
            InvalidRequest, ContextTooLong: The model cannot read this conversation.
        """
        async with self.generate_all([request], id=id, key=key) as (generation,):
            yield generation

    @asynccontextmanager
    async def generate_all(
        self,
        requests: Sequence[Request],
        *,
        choices: int = 1,
        id: str | None = None,
        key: str = "",
    ) -> AsyncIterator[tuple[Generation, ...]]:
        """Several answers as one scope, under one id: see :meth:`generate`.

        Each has a ticket and a seat of its own, and all enter the line at once or none does. Seats
        are dealt to them as they come free, in order.

        Args:
            requests: What is asked: at least one.
            choices: So many answers to each of them in a row. They share what was read of the
                prompt; the second is that of ``seed + 1``, and so on.
            id: Under which they can be cancelled, all together.
            key: Whose they are.

        Raises:
            InvalidRequest: They are more than may ever be seated at once.
            ChatStreamError: What :meth:`generate` raises.
        """
        self.check()
        codec = self.codec
        id = id or secrets.token_hex(12)
        self._requests.check_id(id)
        self.check_number(len(requests) * choices, requests[0].param if choices == 1 else "n")
        make = partial(
            Generation,
            id=id,
            key=key,
            engine=self._engine,
            on_change=self._changed,
            spacing=self._spacing,
        )
        generations = enter_all(requests, choices, make, self._admission.enter)
        self._requests.add(id, generations)
        try:
            for each in generations:
                if timeouts := each.request.timeouts.under(self.settings.timeouts):
                    self._nursery.start_soon(each.phases.keep, timeouts, each.fail)
            read = partial(_read, codec, requests, self._engine.info, self._model.grammars)
            prompts = await self._side.run(read, size=sum(request.size for request in requests))
            for index, each in enumerate(generations):
                each.prepare(prompts[index // choices], codec.stop_tokens(each.request.stop))
            yield generations
        finally:
            self._requests.remove(id)
            self._changed()

    def cancel(self, id: str, *, key: str | None = None) -> Ended:
        """End a live request by its id; its reader gets :class:`StreamCancelled`.

        Args:
            id: Which.
            key: Who asks; only a request of this key is found. None: whoosever it is.

        Returns:
            How it ended; the same again for a minute, also if it ended in another way.

        Raises:
            StreamNotFound: No live or lately ended request of this key has this id.
        """
        return self._requests.cancel(id, key)

    # ---- The end

    async def drain(self, seconds: float) -> None:
        """Take nothing new; let what is here finish; after ``seconds``, cut what is left.

        Returns when the last request is over. Cancel it to stop waiting and call :meth:`cut`.
        """
        self._draining = True
        self._changed()
        with trio.move_on_after(seconds):
            await self.until_empty()
            return
        self.cut()

    async def until_empty(self) -> None:
        """Wait until no request is live."""
        await self._requests.until_empty()

    def cut(self) -> None:
        """End all requests now; their readers get :class:`Draining`."""
        self._draining = True
        self._requests.fail(lambda: Draining("the server is shutting down"))


def _check_names(settings: Settings, model: Model, embedder: Model | None) -> None:
    """Refuse two models of one name."""
    if embedder is not None and embedder.id in Names.of(model.id, settings.served_model_name).said:
        raise SettingsError(
            f"both models are called {embedder.id!r}; give another served_model_name",
            param="embedding_model",
        )


def _read(
    codec: Codec, requests: Sequence[Request], info: RunnerInfo, grammars: Grammars | None
) -> list[Prompt]:
    prompts = []
    for request in requests:
        prompt = codec.read(request.said, info.max_model_len).holding(request.grammar)
        if max(prompt.tokens) >= info.vocab_size:
            raise InvalidRequest("the prompt has a token that the model lacks", param=request.param)
        if words := request.sampling.bad_words:
            prompt = evolve(prompt, bad_words=encode_bad_words(words, codec))
        grammar = prompt.grammar
        if grammar and grammars and Ability.GRAMMAR in info.abilities:
            grammars.check(grammar, info.vocab_size, info.eos_token_ids)
        prompts.append(prompt)
    return prompts
