"""ChatStream Trio: serve a chat model to many people from one machine, and never lose a seat.

The public names. They are imported when they are first used, so that ``import chatstream_trio``
loads neither torch nor a web framework, and ``chatstream_trio.engine`` runs on a machine that has
only torch, transformers and attrs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "admission.statistics": ("AdmissionStatistics",),
    "generation.ended": ("Ended", "RequestEnding"),
    "engine.face": ("EngineStatistics",),
    "engine.runner": ("Pooling", "RunnerInfo", "RunnerLost", "Sampling"),
    "engine.scripted_runner": ("ScriptedRunner", "StreamFaultError"),
    "errors": (
        "ChatStreamError",
        "ContextTooLong",
        "Draining",
        "EngineFailed",
        "FirstTokenTimeout",
        "HostNotAllowed",
        "IdInUse",
        "InvalidRequest",
        "Loading",
        "ModelNotFound",
        "ModelNotLoaded",
        "ModelNotServed",
        "ModelNotSupported",
        "NotAuthenticated",
        "OriginNotAllowed",
        "QueueFull",
        "QueueTimeout",
        "SettingsError",
        "StreamCancelled",
        "StreamFault",
        "StreamNotFound",
        "TimedOut",
        "TooManyForKey",
        "TotalTimeout",
        "Unavailable",
        "UnsupportedEncoding",
        "UnsupportedField",
    ),
    "events": (
        "Event",
        "FinishReason",
        "Finished",
        "Queued",
        "Reasoning",
        "Silence",
        "Started",
        "Text",
        "ToolArguments",
        "ToolCallStart",
        "Usage",
    ),
    "generation.generation": ("Generation",),
    "generation.state": ("GenerationState", "GenerationStatus"),
    "models": ("Model",),
    "conversation": ("Conversation", "Message", "TextPart", "Tool", "ToolCall", "ToolChoice"),
    "request": ("ChatRequest", "CompletionRequest", "Request", "SamplingOptions", "Timeouts"),
    "house": ("Health", "Status"),
    "service": ("ChatStream",),
    "settings": ("Settings",),
    "text.words": ("WordCodec",),
    "web.app": ("create_app", "install"),
    "web.transport.limits": ("ServerLimits",),
    "web.transport.server": ("bind", "serve"),
    "web.transport.tls": ("tls_context",),
    "vectors.batch": ("Batch",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if TYPE_CHECKING:
    from chatstream_trio.admission.statistics import AdmissionStatistics as AdmissionStatistics
    from chatstream_trio.conversation import Conversation as Conversation
    from chatstream_trio.conversation import Message as Message
    from chatstream_trio.conversation import TextPart as TextPart
    from chatstream_trio.conversation import Tool as Tool
    from chatstream_trio.conversation import ToolCall as ToolCall
    from chatstream_trio.conversation import ToolChoice as ToolChoice
    from chatstream_trio.engine.face import EngineStatistics as EngineStatistics
    from chatstream_trio.engine.runner import Pooling as Pooling
    from chatstream_trio.engine.runner import RunnerInfo as RunnerInfo
    from chatstream_trio.engine.runner import RunnerLost as RunnerLost
    from chatstream_trio.engine.runner import Sampling as Sampling
    from chatstream_trio.engine.scripted_runner import ScriptedRunner as ScriptedRunner
    from chatstream_trio.engine.scripted_runner import StreamFaultError as StreamFaultError
    from chatstream_trio.errors import ChatStreamError as ChatStreamError
    from chatstream_trio.errors import ContextTooLong as ContextTooLong
    from chatstream_trio.errors import Draining as Draining
    from chatstream_trio.errors import EngineFailed as EngineFailed
    from chatstream_trio.errors import FirstTokenTimeout as FirstTokenTimeout
    from chatstream_trio.errors import HostNotAllowed as HostNotAllowed
    from chatstream_trio.errors import IdInUse as IdInUse
    from chatstream_trio.errors import InvalidRequest as InvalidRequest
    from chatstream_trio.errors import Loading as Loading
    from chatstream_trio.errors import ModelNotFound as ModelNotFound
    from chatstream_trio.errors import ModelNotLoaded as ModelNotLoaded
    from chatstream_trio.errors import ModelNotServed as ModelNotServed
    from chatstream_trio.errors import ModelNotSupported as ModelNotSupported
    from chatstream_trio.errors import NotAuthenticated as NotAuthenticated
    from chatstream_trio.errors import OriginNotAllowed as OriginNotAllowed
    from chatstream_trio.errors import QueueFull as QueueFull
    from chatstream_trio.errors import QueueTimeout as QueueTimeout
    from chatstream_trio.errors import SettingsError as SettingsError
    from chatstream_trio.errors import StreamCancelled as StreamCancelled
    from chatstream_trio.errors import StreamFault as StreamFault
    from chatstream_trio.errors import StreamNotFound as StreamNotFound
    from chatstream_trio.errors import TimedOut as TimedOut
    from chatstream_trio.errors import TooManyForKey as TooManyForKey
    from chatstream_trio.errors import TotalTimeout as TotalTimeout
    from chatstream_trio.errors import Unavailable as Unavailable
    from chatstream_trio.errors import UnsupportedEncoding as UnsupportedEncoding
    from chatstream_trio.errors import UnsupportedField as UnsupportedField
    from chatstream_trio.events import Event as Event
    from chatstream_trio.events import Finished as Finished
    from chatstream_trio.events import FinishReason as FinishReason
    from chatstream_trio.events import Queued as Queued
    from chatstream_trio.events import Reasoning as Reasoning
    from chatstream_trio.events import Silence as Silence
    from chatstream_trio.events import Started as Started
    from chatstream_trio.events import Text as Text
    from chatstream_trio.events import ToolArguments as ToolArguments
    from chatstream_trio.events import ToolCallStart as ToolCallStart
    from chatstream_trio.events import Usage as Usage
    from chatstream_trio.generation.ended import Ended as Ended
    from chatstream_trio.generation.ended import RequestEnding as RequestEnding
    from chatstream_trio.generation.generation import Generation as Generation
    from chatstream_trio.generation.state import GenerationState as GenerationState
    from chatstream_trio.generation.state import GenerationStatus as GenerationStatus
    from chatstream_trio.house import Health as Health
    from chatstream_trio.house import Status as Status
    from chatstream_trio.models import Model as Model
    from chatstream_trio.request import ChatRequest as ChatRequest
    from chatstream_trio.request import CompletionRequest as CompletionRequest
    from chatstream_trio.request import Request as Request
    from chatstream_trio.request import SamplingOptions as SamplingOptions
    from chatstream_trio.request import Timeouts as Timeouts
    from chatstream_trio.service import ChatStream as ChatStream
    from chatstream_trio.settings import Settings as Settings
    from chatstream_trio.text.words import WordCodec as WordCodec
    from chatstream_trio.vectors.batch import Batch as Batch
    from chatstream_trio.web.app import create_app as create_app
    from chatstream_trio.web.app import install as install
    from chatstream_trio.web.transport.limits import ServerLimits as ServerLimits
    from chatstream_trio.web.transport.server import bind as bind
    from chatstream_trio.web.transport.server import serve as serve
    from chatstream_trio.web.transport.tls import tls_context as tls_context

__all__ = [
    "AdmissionStatistics",
    "Batch",
    "ChatRequest",
    "ChatStream",
    "ChatStreamError",
    "CompletionRequest",
    "ContextTooLong",
    "Conversation",
    "Draining",
    "Ended",
    "EngineFailed",
    "EngineStatistics",
    "Event",
    "FinishReason",
    "Finished",
    "FirstTokenTimeout",
    "Generation",
    "GenerationState",
    "GenerationStatus",
    "Health",
    "HostNotAllowed",
    "IdInUse",
    "InvalidRequest",
    "Loading",
    "Message",
    "Model",
    "ModelNotFound",
    "ModelNotLoaded",
    "ModelNotServed",
    "ModelNotSupported",
    "NotAuthenticated",
    "OriginNotAllowed",
    "Pooling",
    "QueueFull",
    "QueueTimeout",
    "Queued",
    "Reasoning",
    "Request",
    "RequestEnding",
    "RunnerInfo",
    "RunnerLost",
    "Sampling",
    "SamplingOptions",
    "ScriptedRunner",
    "ServerLimits",
    "Settings",
    "SettingsError",
    "Silence",
    "Started",
    "Status",
    "StreamCancelled",
    "StreamFault",
    "StreamFaultError",
    "StreamNotFound",
    "Text",
    "TextPart",
    "TimedOut",
    "Timeouts",
    "TooManyForKey",
    "Tool",
    "ToolArguments",
    "ToolCall",
    "ToolCallStart",
    "ToolChoice",
    "TotalTimeout",
    "Unavailable",
    "UnsupportedEncoding",
    "UnsupportedField",
    "Usage",
    "WordCodec",
    "bind",
    "create_app",
    "install",
    "serve",
    "tls_context",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
