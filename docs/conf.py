"""Sphinx: furo, MyST, and tables that are made from the code. Builds without torch."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE / "_ext")]

project = "ChatStream Trio"
author = "The ChatStream Trio maintainers"
copyright = f"2026, {author}"
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]["version"]
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_code"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"ChatStream Trio {release}"

autodoc_mock_imports = ["torch", "transformers"]
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_default_options = {"undoc-members": True}
napoleon_numpy_docstring = False
nitpicky = True
# Other projects' names: their documentation is on the network, and the build is not.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(trio|quart|quart_trio|collections|contextlib|enum|typing|attrs|socket|pathlib|ssl)\..*",
    ),
    # Ours, and not public.
    ("py:meth", r"(Admission|Engine)\.statistics"),
    ("py:data", r"SEPARATOR"),
    ("py:class", r"(Progress|Grammars)"),
    ("py:attr", r"ScriptedRunner\.faults"),
    ("py:func", r"chatstream_trio\.web\.current\.set_chat"),
]

nitpick_ignore = [("py:class", "chatstream_trio.service.T")]
