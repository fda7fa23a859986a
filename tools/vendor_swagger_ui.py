"""Fetch the files of the page at ``/docs`` from npm, and check that they are what was published.

    python tools/vendor_swagger_ui.py            # compare what is in the tree with npm's package
    python tools/vendor_swagger_ui.py --write    # put it there

For another version change VERSION and INTEGRITY (``npm view swagger-ui-dist dist.integrity``), run
it with ``--write``, and take over the hashes that it prints. A test compares them with the tree.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "5.35.0"
INTEGRITY = (
    "sha512-U06rpMtW9V3XPGOBeamTUSr0Z09jMX4IJuANpE/EZbAhw0G8"
    "CgwrzU4YmXkn/h0wCDNsXdGarTNNHC3sU8yVUQ=="
)
_HASHES = """
cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30  LICENSE
0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2  NOTICE
e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2  swagger-ui-bundle.js
37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb  swagger-ui-bundle.js.LICENSE.txt
5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d  swagger-ui.css
"""
FILES = {line.split()[1]: line.split()[0] for line in _HASHES.strip().splitlines()}
"""SHA-256 of each."""
FOLDER = Path(__file__).parents[1] / "src/chatstream_trio/web/openapi/static/swagger-ui"


def fetch() -> dict[str, bytes]:
    """The files, from the package that npm serves.

    Raises:
        SystemExit: It is not the one that is expected.
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", f"swagger-ui-dist@{VERSION}"], cwd=folder, check=True
        )
        archive = next(Path(folder).iterdir())
        digest = hashlib.sha512(archive.read_bytes()).digest()
        if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
            raise SystemExit("npm's package is not the one that is expected")
        found = {}
        with tarfile.open(archive) as package:
            for name in FILES:
                member = package.extractfile(f"package/{name}")
                assert member is not None
                found[name] = member.read()
    return found


def main() -> None:
    """Compare, or write."""
    found = fetch()
    for name, data in found.items():
        digest = hashlib.sha256(data).hexdigest()
        print(f"{digest}  {name}")
        if "--write" in sys.argv:
            (FOLDER / name).write_bytes(data)
        elif digest != FILES[name] or (FOLDER / name).read_bytes() != data:
            raise SystemExit(f"{name} is not what was published")


if __name__ == "__main__":
    main()
