"""How fast are other servers with the same model, on the same machine?

Starts this project's server, ``transformers serve --continuous-batching``, ChatStream 0.3.0 and
llama.cpp's ``llama-server``, one after the other, on one model directory; lets one user and then
eight ask for answers of 64 tokens, greedily; ends the server; and does that for some rounds, so
that a mood of the machine hits everybody. The figures are medians over the rounds. A server whose
program is not given or found is left out.

Without ``--model`` it makes a directory of its own: random weights in the shape of SmolLM2-135M,
bfloat16. ``--make DIR`` only does that (``llama-server`` wants the same as GGUF, from llama.cpp's
``convert_hf_to_gguf.py``).

    python -m benchmarks.peers --make /tmp/model
    python -m benchmarks.peers --model /tmp/model --transformers VENV/bin/transformers \\
        --chatstream-python VENV2/bin/python --llama-server llama-server --gguf /tmp/model.gguf \\
        --with="--compile" --with="--compile --quantize int8"
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

import trio
from attrs import asdict
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers_suite import servers
from benchmarks.peers_suite.model import make_model
from benchmarks.peers_suite.rounds import Load, play, summary, table
from benchmarks.peers_suite.servers import Peer, found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    about, _, usage = (__doc__ or "").partition("    python")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="peers", description=about, epilog=f"    python{usage}", formatter_class=form
    )
    add = parser.add_argument
    add("--model", type=Path, metavar="DIR", help="the model directory; default: one is made")
    add("--make", type=Path, metavar="DIR", help="make the model directory there, and end")
    add("--transformers", metavar="PATH", help="the program `transformers` of another venv")
    add("--chatstream-python", metavar="PATH", help="the python of a venv with ChatStream 0.3.0")
    add("--llama-server", metavar="PATH", default="llama-server", help="default: on the PATH")
    add("--gguf", type=Path, metavar="FILE", help="the same model for llama-server")
    add("--threads", type=int, default=os.cpu_count() or 1, help="of llama-server (all cores)")
    add(
        "--with",
        dest="flags",
        action="append",
        default=[],
        metavar="FLAGS",
        help='ours with these flags as well, such as --with="--compile"; repeatable',
    )
    add("--rounds", type=int, default=3, help="of all servers (3)")
    add("--users", type=int, nargs="+", default=[1, 8], help="(1 8)")
    add("--requests-per-user", type=int, default=3, help="in each round (3), after one to warm up")
    add("--max-tokens", type=int, default=64, help="of an answer (64)")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    add("--logs", type=Path, metavar="DIR", help="where the servers' words go; default: nowhere")
    return parser.parse_args(arguments)


def peers_from(given: argparse.Namespace, model: Path, console: Console) -> list[Peer]:
    """Those that can be started, ours first; a line for each of the others."""
    peers = [servers.ours(model, *flags.split()) for flags in given.flags]
    peers.append(servers.ours(model))
    if program := found(given.transformers):
        peers.append(servers.transformers_serve(model, program))
    else:
        console.print("transformers serve is left out: no program (--transformers)")
    if python := found(given.chatstream_python):
        peers.append(servers.chatstream(model, python, given.max_tokens))
    else:
        console.print("ChatStream 0.3.0 is left out: no python (--chatstream-python)")
    program = found(given.llama_server)
    if program and given.gguf and given.gguf.is_file():
        peers.append(servers.llama_server(given.gguf, program, given.threads))
    else:
        missing = "program (--llama-server)" if program is None else "GGUF file (--gguf)"
        console.print(f"llama-server is left out: no {missing}")
    return peers


def compare(given: argparse.Namespace, folder: Path, console: Console) -> None:
    """Measure, show, write."""
    model = given.model
    if model is None:
        model = folder / "smollm2-135m-shape"
        make_model(model)
    peers = peers_from(given, model.absolute(), console)
    load = Load(tuple(given.users), given.requests_per_user, given.max_tokens)
    logs = given.logs or folder
    logs.mkdir(parents=True, exist_ok=True)
    results = trio.run(play, peers, load, given.rounds, logs, console.print)
    rows = summary(results)
    console.print(table(rows))
    if given.json:
        machine = {"cores": os.cpu_count(), "platform": platform.platform()}
        report = {"machine": machine, "load": asdict(load), "servers": rows}
        given.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Make a model, or compare."""
    given = parse(arguments)
    if given.make:
        make_model(given.make)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        compare(given, Path(folder), Console(width=None if sys.stdout.isatty() else 140))
    return 0


if __name__ == "__main__":
    sys.exit(main())
