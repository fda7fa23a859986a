"""The arrows of the house point down only, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import chatstream_trio

PACKAGE = Path(chatstream_trio.__file__).parent

LINES = {
    # who: what of the house it may import | which libraries
    "errors.py": "",
    "events.py": "| attrs",
    "conversation.py": "| attrs",
    "aside/threads.py": "| attrs trio",
    "aside": "",
    "progress.py": "| rich",
    "demo": "",
    "grammars/grammar.py": "| attrs",
    "grammars": "errors grammars/grammar | attrs llguidance",
    "text/answers": "conversation errors events grammars/grammar | attrs",
    "text": "conversation errors events aside grammars/grammar text/answers | attrs tokenizers",
    "admission": "errors | attrs trio",
    "engine/choice": "errors grammars/grammar | attrs",
    "engine": "engine/choice errors | attrs",
    "engine/drivers.py": "engine | trio",
    "engine/engine.py": "engine engine/drivers errors | attrs trio",
    "torch_runner/shape.py": "| attrs",
    "torch_runner/spans.py": "| attrs",
    "torch_runner/pieces.py": "| attrs",
    "torch_runner/kv.py": "| attrs torch",
    "torch_runner/attention": "errors torch_runner/kv torch_runner/pieces torch_runner/spans"
    " | attrs torch transformers",
    "torch_runner/transfer.py": "| torch",
    "torch_runner/besides": "engine torch_runner/transfer | attrs torch",
    "torch_runner": "engine errors grammars torch_runner/attention torch_runner/besides"
    " torch_runner/kv torch_runner/pieces torch_runner/shape torch_runner/spans"
    " torch_runner/transfer | attrs llguidance torch transformers",
    "torch_runner/load/options.py": "engine torch_runner/shape | attrs",
    "torch_runner/load/source.py": "errors",
    "torch_runner/load/layers": "errors torch_runner torch_runner/attention torch_runner/pieces"
    " torch_runner/shape | attrs torch transformers",
    "torch_runner/load": "engine errors grammars torch_runner torch_runner/attention"
    " torch_runner/kv torch_runner/load/layers torch_runner/load/options torch_runner/load/source"
    " torch_runner/pieces torch_runner/shape | attrs torch transformers",
    "embedder": "engine errors | attrs torch transformers",
    "validation": "conversation errors | attrs",
    "request.py": "conversation engine errors grammars/grammar validation | attrs",
    "settings.py": "engine errors request text/answers | attrs",
    "generation": "admission engine errors events grammars/grammar request text | attrs trio",
    "models.py": "demo embedder engine errors grammars settings text torch_runner/load"
    " torch_runner/load/options torch_runner/load/source torch_runner/shape | attrs transformers",
    "keeper.py": "engine errors | trio",
    "house.py": "admission aside/threads engine engine/drivers engine/engine errors generation"
    " keeper models settings text | attrs trio",
    "vectors/batch.py": "admission errors generation request text | attrs trio",
    "vectors": "aside engine errors generation house models request settings text vectors/batch"
    " | attrs trio",
    "service.py": "engine errors generation grammars house models progress request settings text"
    " vectors | attrs trio",
    "web/transport": "| attrs h11 h2 hypercorn priority quart quart_trio trio werkzeug",
    "web/bodies": "errors aside | attrs msgspec quart trio werkzeug",
    "web": "conversation errors events generation house aside request service settings web/bodies"
    " web/transport | attrs msgspec quart trio werkzeug",
    "web/gates": "errors settings web web/transport | attrs hypercorn quart werkzeug",
    "web/openapi": "errors web | attrs msgspec quart trio werkzeug",
    "web/openai": "conversation errors events generation grammars/grammar house aside request"
    " service text validation web web/bodies web/openapi | attrs msgspec quart",
    "web/anthropic": "conversation errors events generation aside request service web web/bodies"
    " web/openapi | attrs msgspec quart",
    "web/responses": "conversation errors events generation grammars/grammar aside request web"
    " web/bodies web/openai web/openapi"
    " | attrs msgspec quart werkzeug",
    "web/completions": "aside errors events generation request web web/bodies web/openai"
    " web/openapi | attrs msgspec quart",
    "web/ollama": "conversation engine errors events generation grammars/grammar house aside"
    " request service web web/bodies web/openai web/openapi | attrs msgspec quart trio",
    "web/embeddings": "aside errors request service validation vectors/batch web web/bodies"
    " web/openai web/openapi | attrs quart",
    "web/app.py": "service settings web web/anthropic web/completions web/embeddings web/gates"
    " web/ollama"
    " web/openai web/openapi web/responses web/transport | quart quart_trio trio werkzeug",
    "serving.py": "engine errors house models service settings web/app web/transport | attrs trio",
    "bench": "errors settings | attrs matplotlib msgspec rich trio",
    "console.py": "bench errors | attrs httpx rich",
    "cli.py": "bench console errors models serving settings web/gates | cyclopts trio",
    "__main__.py": "cli",
}
"""From the ground up: who stands higher may know who stands lower. A file has its own line or its
folder's, so that a new one is held to what its folder promises."""

MOST_FILES = 15
MOST_LINES = {"function": 60, "class": 200, "file": 300}


def imports(path: Path, *, lazy: bool = True) -> set[str]:
    """The modules that a file imports, by full name; ``lazy`` counts those inside functions."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else tree.body
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide the arrows"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def modules() -> dict[str, Path]:
    """Every module by its place, such as ``web/app.py``; the package's own face has a test of its
    own."""
    paths = PACKAGE.rglob("*.py")
    found = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(paths)}
    del found["__init__.py"]
    return found


MODULES = modules()


def line_of(place: str) -> str:
    """The key of the line that holds for a module."""
    if place in LINES:
        return place
    return place.rpartition("/")[0]


def house(place: str) -> Iterator[str]:
    """The places of the modules of the house that a module imports."""
    for name in imports(MODULES[place]):
        stem = name.removeprefix("chatstream_trio.").replace(".", "/")
        yield from {f"{stem}.py", f"{stem}/__init__.py"} & set(MODULES)


def called(line: str) -> str:
    """How a line is called by others: ``engine/engine`` is one file of ``engine``."""
    return line.removesuffix(".py")


@pytest.mark.parametrize("place", MODULES)
def test_a_module_keeps_to_its_line(place: str) -> None:
    """It imports what its line says, and its own folder; every module has a line."""
    assert line_of(place) in LINES, f"{place} stands nowhere"
    mine = line_of(place)
    allowed, _, libraries = LINES[mine].partition("|")
    for other in house(place):
        if line_of(other) != mine:
            assert called(line_of(other)) in allowed.split(), f"{place} imports {other}"
    tops = {name.split(".")[0] for name in imports(MODULES[place])}
    foreign = tops - set(sys.stdlib_module_names) - {"chatstream_trio"}
    assert foreign <= set(libraries.split()), place


@pytest.mark.parametrize("line", LINES)
def test_a_line_says_no_more_than_is_so(line: str) -> None:
    """What nobody needs any more, nobody may have."""
    places = [place for place in MODULES if line_of(place) == line]
    assert places, f"{line} is nowhere"
    others = {called(line_of(other)) for place in places for other in house(place)}
    tops = {name.split(".")[0] for place in places for name in imports(MODULES[place])}
    allowed, _, libraries = LINES[line].partition("|")
    assert set(allowed.split()) <= others
    assert set(libraries.split()) <= tops


def test_lines_stand_on_one_another() -> None:
    """Section 2: web -> service -> generation, admission -> text, engine -> events, errors."""
    rank = {called(line): number for number, line in enumerate(LINES)}
    for line, said in LINES.items():
        for other in said.partition("|")[0].split():
            assert rank[other] < rank[called(line)], f"{line} may import {other}"


def test_no_two_modules_import_each_other() -> None:
    """Nor in a circle of any length; also not inside functions."""
    graph = {place: set(house(place)) - {place} for place in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_what_loads_is_not_there_while_turns_run() -> None:
    """``torch_runner/load`` is imported by itself and by who loads a model."""
    for place in MODULES:
        if any(other.startswith("torch_runner/load/") for other in house(place)):
            assert place.startswith("torch_runner/load/") or place == "models.py"


def test_folders_are_small() -> None:
    """At most 15 files in each."""
    folders = [place.rpartition("/")[0] for place in MODULES]
    assert max(folders.count(folder) for folder in folders) <= MOST_FILES


@pytest.mark.parametrize("place", MODULES)
def test_files_and_what_is_in_them_are_small(place: str) -> None:
    """A function has at most 60 lines, a class 200, a file 300."""
    text = MODULES[place].read_text()
    sizes = {f"file {place}": text.count("\n")}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            assert node.end_lineno is not None
            sizes[f"{kind} {place}:{node.name}"] = node.end_lineno - node.lineno + 1
    large = {name for name, size in sizes.items() if size > MOST_LINES[name.split()[0]]}
    assert not large


def test_the_map_names_every_file() -> None:
    """Who is new finds each of them in CONTRIBUTING."""
    page = PACKAGE.parents[1] / "CONTRIBUTING.md"
    drawn = page.read_text().partition("```text\nsrc/")[2].partition("```")[0]
    names = {word.strip("(),") for word in drawn.split()}
    files = {Path(place).name for place in MODULES} - {"__init__.py"}
    assert files == {name for name in names if name.endswith(".py")}


@pytest.mark.parametrize("word", ["X-Stream-Id", "chatcmpl"])
def test_only_who_speaks_it_knows_the_wire(word: str) -> None:
    """The service and all below it know no header and no API's words."""
    speak = ("web/", "bench/", "cli.py", "console.py")
    knows = [place for place, path in MODULES.items() if word in path.read_text()]
    assert [place for place in knows if not place.startswith(speak)] == []


def test_the_load_generator_knows_only_the_wire() -> None:
    """Of the package it takes the errors and the checks of settings, and nothing that serves."""
    for place in MODULES:
        if place.startswith("bench/"):
            others = {other for other in house(place) if not other.startswith("bench/")}
            assert others <= {"errors.py", "settings.py"}, place


def run(code: str) -> str:
    """Run code in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_heavy() -> None:
    """``import chatstream_trio`` and ``--help`` load neither torch nor transformers."""
    names = {"torch", "transformers", "llguidance", "quart", "trio"}
    heavy = f"sorted({names} & set(__import__('sys').modules))"
    assert run(f"import chatstream_trio; print({heavy})") == "[]\n"
    help_ = "import chatstream_trio.cli as c; c.main(['serve', '--help'])"
    assert run(f"{help_}; print({heavy})").endswith("[]\n")


def test_public_names_are_what_they_say() -> None:
    """Each name of ``__all__`` can be had, is typed, and comes from the module that is written."""
    for name in chatstream_trio.__all__:
        assert getattr(chatstream_trio, name) is not None
    assert set(chatstream_trio.__all__) == set(chatstream_trio._HOME_OF)
    typed = imports(PACKAGE / "__init__.py")
    for name, home in chatstream_trio._HOME_OF.items():
        assert f"chatstream_trio.{home}.{name}" in typed
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = chatstream_trio.nonsense
