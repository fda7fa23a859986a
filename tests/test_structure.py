"""The arrows of the house point down only, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import chatstream_trio

PACKAGE = Path(chatstream_trio.__file__).parent


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


def files(where: str) -> list[Path]:
    """The Python files at a place of the package."""
    path = PACKAGE / where
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def top(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("where", "forbidden"),
    [
        ("web", {"torch", "transformers"}),
        ("engine", {"quart", "quart_trio", "hypercorn"}),
        ("text", {"trio", "torch", "quart", "quart_trio", "hypercorn"}),
        ("engine/turns.py", {"trio", "torch"}),
        ("engine/streams.py", {"trio", "torch"}),
        ("engine/blocks.py", {"trio", "torch"}),
        ("engine/budget.py", {"trio", "torch"}),
        ("engine/capacity.py", {"trio", "torch"}),
        ("engine/checks.py", {"trio", "torch"}),
        ("engine/runner.py", {"trio", "torch"}),
        ("engine/worker.py", {"trio", "torch"}),
        ("engine/scripted_runner.py", {"trio", "torch"}),
        ("engine/source.py", {"trio", "torch", "transformers"}),
        ("events.py", {"trio", "torch"}),
        ("errors.py", {"trio", "torch", "quart", "hypercorn"}),
        ("admission.py", {"torch", "quart", "hypercorn"}),
        ("generation.py", {"torch", "quart", "hypercorn"}),
        ("keeper.py", {"torch", "quart", "hypercorn"}),
        ("service.py", {"torch", "quart", "hypercorn"}),
        ("bench", {"torch", "transformers", "quart", "quart_trio", "hypercorn"}),
    ],
)
def test_what_a_layer_does_not_know(where: str, forbidden: set[str]) -> None:
    """Section 2: each layer is free of the libraries of the others."""
    for path in files(where):
        assert not top(imports(path)) & forbidden, path


def test_only_the_engines_crossing_knows_trio() -> None:
    """The rest of the engine runs on a machine that has only torch, transformers and attrs."""
    allowed = {"torch", "transformers", "attrs", "safetensors", "tokenizers", "chatstream_trio"}
    for path in files("engine"):
        if path.name == "engine.py":
            continue
        foreign = top(imports(path)) - allowed - set(sys.stdlib_module_names)
        assert not foreign, (path, foreign)
        house = {name for name in imports(path) if name.startswith("chatstream_trio.")}
        assert all(
            name.startswith(("chatstream_trio.engine", "chatstream_trio.errors")) for name in house
        ), path


def test_the_load_generator_knows_only_the_wire() -> None:
    """Of the package it takes the errors and the checks of settings, and nothing that serves."""
    allowed = ("chatstream_trio.bench", "chatstream_trio.errors", "chatstream_trio.settings")
    for path in files("bench"):
        house = {name for name in imports(path) if name.startswith("chatstream_trio.")}
        assert all(name.startswith(allowed) for name in house), path


LAYERS = ("errors", "events", "engine text", "request", "admission", "generation", "service", "web")


def test_arrows_point_down() -> None:
    """web -> service -> admission, generation -> text, engine -> events, errors."""
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer.split()}
    rank["request"] = rank["engine"] + 1
    for path in files("."):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in rank:
            continue
        for name in imports(path):
            target = name.split(".")[1] if name.startswith("chatstream_trio.") else ""
            if target in rank and target != parts[0]:
                assert rank[target] < rank[parts[0]], f"{path} imports {name}"


def run(code: str) -> str:
    """Run code in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_loads_nothing_heavy() -> None:
    """``import chatstream_trio`` and ``--help`` load neither torch nor transformers."""
    heavy = "sorted({'torch', 'transformers', 'quart', 'trio'} & set(__import__('sys').modules))"
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
