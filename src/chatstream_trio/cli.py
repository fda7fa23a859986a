"""The command line: flags, variables and a file to settings, and settings to a running program.

Wrong settings are one line on stderr and exit code 2; a model that cannot be loaded is one line
and exit code 1. Importing this loads neither torch nor transformers.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Env, Toml

from chatstream_trio.bench.options import BenchOptions
from chatstream_trio.errors import ChatStreamError, SettingsError
from chatstream_trio.settings import Settings

app = App(
    name="chatstream-trio",
    help="Serve a chat model to many people from one machine, and never lose a seat.",
    version=lambda: version("chatstream-trio"),
    result_action="return_value",
)


@app.command
def serve(
    settings: Annotated[Settings, Parameter(name="*")] = Settings(),
    *,
    config: Annotated[Path | None, Parameter(env_var="CHATSTREAM_CONFIG")] = None,
) -> int:
    """Serve a model over HTTP, with OpenAI's endpoints.

    Every flag is also a variable CHATSTREAM_... and a key of the --config file; flag beats
    variable beats file. Without --model the embedded demo model is served.

    Parameters
    ----------
    config
        A TOML file with settings, such as "max_active = 4".
    """
    import trio

    from chatstream_trio.models import find_embedder, find_model
    from chatstream_trio.serving import open_door, run_server
    from chatstream_trio.web.gates.origins import Origins

    # Until there is a server that hears them: a hangup is nothing, and who is told to end, ends.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _log_to_stderr()
    model = find_model(settings)
    find_embedder(settings, 1)  # where nothing is there, that is a wrong setting
    Origins(settings)  # a malformed name or origin is a wrong setting
    abandoned = trio.run(run_server, settings, model, open_door(settings))
    if abandoned:  # a thread that cannot be stopped would hold up, or crash, the exit
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


@app.command
def chat(
    url: str = "http://127.0.0.1:8000",
    *,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
) -> int:
    """Chat with a running server. Ctrl-C stops the answer, not the program.

    Parameters
    ----------
    url
        Where the server is.
    system
        What the model is told before the conversation.
    max_tokens
        The longest answer.
    temperature
        0 is the most likely answer; higher is more varied. Default: the model's own.
    """
    from chatstream_trio.console import Conversation, converse

    options = {"max_tokens": max_tokens, "temperature": temperature}
    return converse(Conversation(url, system, {k: v for k, v in options.items() if v is not None}))


@app.command
def bench(
    options: Annotated[BenchOptions, Parameter(name="*")] = BenchOptions(),
    *,
    json: Path | None = None,
    plot: Path | None = None,
) -> int:
    """Put a load on any server with OpenAI's chat completions, and say how it was carried.

    Ctrl-C ends it early, with the figures so far. The exit code is 1 when not one request was
    answered.

    Parameters
    ----------
    json
        Write the figures to this file.
    plot
        Draw them to this file (.png, .svg or .pdf). Needs matplotlib.
    """
    from chatstream_trio.bench.command import run

    return run(options, json, plot)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the value is the exit code."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    try:
        app.config = _sources(tokens) if tokens[:1] == ["serve"] else ()
        result: Any = app(tokens, exit_on_error=False, print_error=False)
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        return _fail(" ".join(str(error).split()), 2)
    except SettingsError as error:
        return _fail(error.message, 2)
    except ChatStreamError as error:
        return _fail(error.message, 1)
    except KeyboardInterrupt:
        return 130


def _sources(tokens: list[str]) -> tuple[Any, ...]:
    """The environment, and behind it the file that ``--config`` names.

    Raises:
        SettingsError: The file cannot be read.
    """
    import tomllib

    env = Env("CHATSTREAM_", command=False)
    path = _config_path(tokens)
    if path is None:
        return (env,)
    try:
        with open(path, "rb") as file:
            tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}", param="config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", param="config") from None
    return (env, Toml(path, must_exist=True, use_commands_as_keys=False))


def _config_path(tokens: list[str]) -> str | None:
    """The file has to be known before the flags are parsed against it."""
    for index, token in enumerate(tokens):
        if token.startswith("--config="):
            return token.removeprefix("--config=")
        if token == "--config" and index + 1 < len(tokens):
            return tokens[index + 1]
    return os.environ.get("CHATSTREAM_CONFIG")


def _fail(message: str, code: int) -> int:
    print(f"chatstream-trio: {message}", file=sys.stderr, flush=True)
    return code


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("chatstream_trio").setLevel(logging.INFO)
