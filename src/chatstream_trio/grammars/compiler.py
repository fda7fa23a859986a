"""What a grammar means in one model's vocabulary: which tokens may come next. By llguidance.

A request's grammar is compiled in a thread beside the event loop, where nobody waits for it; the
runner then finds what was compiled, and takes a copy. This module knows no tensors and no streams.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from attrs import define, field, frozen
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark

from chatstream_trio.errors import InvalidRequest, UnsupportedField, one_line
from chatstream_trio.grammars.grammar import JSON_OPTIONS, Grammar, GrammarKind
from chatstream_trio.grammars.limits import check_size

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

PATIENCE = 5.0
"""Seconds that compiling one grammar may take."""
_SIDE_BY_SIDE = 2
"""Grammars that are compiled at once. One that takes too long counts until it is done."""
_KEPT = 2**21
"""Characters of grammars that stay compiled: each may take some hundred times its size."""
_STACK = 2**28
"""Bytes of the compiling thread's stack, of which a rule of a rule of a rule takes its share. The
largest grammars were seen to need less than half of it."""
_STACK_LOCK = threading.Lock()
_MOST_ITEMS = 5_000
"""Ways to go on at one place: an object's optional properties are four each."""
_MOST_STATES = 50_000
"""Of a grammar's lexer: one or two kilobytes each."""
_JSON = cast("JsonCompileOptions", JSON_OPTIONS)
_TOO_LONG = f"the grammar takes longer than {PATIENCE:g} seconds to compile"


class Vocabulary(Protocol):
    """A ``tokenizers.Tokenizer``."""

    def to_str(self) -> str:
        """As JSON."""
        ...


@frozen
class Compiler:
    """Compiles grammars for one vocabulary. Safe in several threads."""

    vocabulary: LLTokenizer
    loose: tuple[int, ...]
    """Tokens that end an answer and that are text besides: they may only come at its end."""
    _kept: OrderedDict[Grammar, LLMatcher] = field(init=False, factory=OrderedDict)
    _lock: threading.Lock = field(init=False, factory=threading.Lock)
    _slots: threading.Semaphore = field(
        init=False, factory=lambda: threading.Semaphore(_SIDE_BY_SIDE)
    )

    @classmethod
    def of(cls, vocabulary: Vocabulary, vocab_size: int, eos: frozenset[int]) -> Compiler:
        """For a model's tokenizer, which is read once: that takes up to a second.

        Raises:
            UnsupportedField: llguidance cannot read it, or no token ends an answer.
        """
        if not eos:
            raise UnsupportedField(
                "this model has no token that ends an answer, which a grammar needs",
                param="grammar",
            )
        text, ends = vocabulary.to_str(), sorted(eos)
        try:
            try:
                tokenizer = LLTokenizer(text, n_vocab=vocab_size, eos_token=ends)
            except ValueError:  # it has tokens that the model lacks
                tokenizer = LLTokenizer(text, eos_token=ends)
        except BaseException as error:
            _reraise_unless_panic(error)
            raise UnsupportedField(
                f"this model's tokenizer cannot be held to a grammar: {one_line(error)}",
                param="grammar",
            ) from error
        return cls(tokenizer, tuple(id for id in ends if not tokenizer.is_special_token(id)))

    def matcher(self, grammar: Grammar) -> LLMatcher:
        """A matcher at the beginning of an answer, the caller's own.

        Raises:
            InvalidRequest: It is no grammar, or too large; ``param`` is the grammar's.
        """
        with self._lock:
            found = self._kept.get(grammar)
            if found is not None:
                self._kept.move_to_end(grammar)
        if found is None:
            check_size(grammar)
            found = self._within_patience(grammar)
            with self._lock:
                self._kept[grammar] = found
                while len(self._kept) > 1 and sum(len(g.source) for g in self._kept) > _KEPT:
                    self._kept.popitem(last=False)
        return found.deep_copy()

    def _within_patience(self, grammar: Grammar) -> LLMatcher:
        """Compile it in a thread that can be left behind: nothing ends it from outside."""
        done: list[LLMatcher | InvalidRequest] = []

        def work() -> None:
            try:
                done.append(self._compile(grammar))
            except InvalidRequest as error:
                done.append(error)
            finally:
                self._slots.release()

        if self._slots.acquire(timeout=PATIENCE):
            _start_with_stack(work).join(PATIENCE)
        if not done:
            raise InvalidRequest(_TOO_LONG, param=grammar.param)
        (result,) = done
        if isinstance(result, InvalidRequest):
            raise result
        return result

    def _compile(self, grammar: Grammar) -> LLMatcher:
        try:
            source = _to_llguidance(grammar)
            limits = LLParserLimits(
                max_items_in_row=_MOST_ITEMS, max_lexer_states=_MOST_STATES, verbose_errors=False
            )
            matcher = LLMatcher(self.vocabulary, source, log_level=0, limits=limits)
            if not matcher.is_error():
                matcher.compute_bitmask()  # some faults come to light only here
            complaint = matcher.get_error()
        except BaseException as error:
            _reraise_unless_panic(error)
            complaint = str(error) or type(error).__name__
        if complaint:
            raise InvalidRequest(
                f"the grammar cannot be compiled: {tidy(complaint)}", param=grammar.param
            )
        return matcher


@define
class Grammars:
    """The compiler for one model, made when it is first wanted. Safe in several threads.

    Args:
        load: Gives the model's tokenizer. It may take a while.
    """

    _load: Callable[[], Vocabulary]
    _made: dict[tuple[int, frozenset[int]], Compiler | UnsupportedField] = field(
        init=False, factory=dict
    )
    _lock: threading.Lock = field(init=False, factory=threading.Lock)

    def compiler(self, vocab_size: int, eos: frozenset[int]) -> Compiler:
        """For the model with so many tokens, of which ``eos`` end an answer.

        Raises:
            UnsupportedField: Its answers cannot be held to a grammar.
        """
        key = vocab_size, eos
        if (made := self._made.get(key)) is None:
            with self._lock:
                if (made := self._made.get(key)) is None:
                    made = self._made[key] = self._make(vocab_size, eos)
        if isinstance(made, UnsupportedField):
            raise UnsupportedField(made.message, param=made.param)
        return made

    def check(self, grammar: Grammar, vocab_size: int, eos: frozenset[int]) -> None:
        """Pass if answers of this model can be held to it. What is compiled here is kept.

        Raises:
            InvalidRequest: They cannot; ``param`` is the grammar's.
        """
        try:
            compiler = self.compiler(vocab_size, eos)
        except UnsupportedField as error:
            raise UnsupportedField(error.message, param=grammar.param) from None
        compiler.matcher(grammar)

    def _make(self, vocab_size: int, eos: frozenset[int]) -> Compiler | UnsupportedField:
        try:
            return Compiler.of(self._load(), vocab_size, eos)
        except UnsupportedField as error:
            return error


def _start_with_stack(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, name="grammar", daemon=True)
    with _STACK_LOCK:
        usual = threading.stack_size(_STACK)
        try:
            thread.start()
        finally:
            threading.stack_size(usual)
    return thread


def tidy(complaint: str) -> str:
    """What llguidance complains of, on one line."""
    if complaint.startswith("NoExtension"):
        return "no answer belongs to it"
    return one_line(complaint.replace("<non-verbose/>", ""))


def _to_llguidance(grammar: Grammar) -> str:
    source = grammar.source
    match grammar.kind:
        case GrammarKind.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(source, overrides=_JSON)
        case GrammarKind.REGEX:
            return LLMatcher.grammar_from_regex(source)
        case GrammarKind.LARK:
            return LLMatcher.grammar_from_lark(source)
        case GrammarKind.GBNF:
            return LLMatcher.grammar_from_lark(gbnf_to_lark(source))
        case GrammarKind.CHOICE:
            return LLMatcher.grammar_from_lark(_choice(json.loads(source)))


def _choice(texts: object) -> str:
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError("a choice is a list of strings, at least one")
    return "start: CHOICE\nCHOICE: " + " | ".join(json.dumps(text) for text in texts)


def _reraise_unless_panic(error: BaseException) -> None:
    """A panic in Rust comes as a ``BaseException`` of a class that nobody can import."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
