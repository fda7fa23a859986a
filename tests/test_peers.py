"""The comparison of servers: each is started, measured and ended, with all that it started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import trio
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import peers as command
from benchmarks.peers_suite import rounds
from benchmarks.peers_suite.rounds import Load, play, summary, table
from benchmarks.peers_suite.servers import Peer, PeerFailedError, file_name, running

GUARD = 60.0
STUB = """
import http.server, subprocess, sys, time
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
child = subprocess.Popen(
    [sys.executable, "-c", STUBBORN + "; time.sleep(600)"], stdout=subprocess.PIPE
)
child.stdout.readline()
open(sys.argv[2], "w").write(str(child.pid))
TEXT = b'data: {"choices":[{"delta":{"content":"x "}}]}\\n\\n'
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\\n\\ndata: [DONE]\\n\\n'
class Stub(http.server.BaseHTTPRequestHandler):
    def answer(self, status, kind, body):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        found = self.path == "/v1/models"
        body = b'{"data": [{"id": "stub"}]}' if found else b"{}"
        self.answer(200 if found else 404, "application/json", body)
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, "text/event-stream", TEXT * 4 + END)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Stub).serve_forever()
"""


def stub(folder: Path, name: str) -> Peer:
    script = folder / "stub.py"
    script.write_text(STUB)
    child = folder / f"{name}.child"
    return Peer(name, lambda port: [sys.executable, str(script), str(port), str(child)])


def alive(pid: int) -> bool:
    """Whether it runs; what has ended may wait, as a zombie, for somebody to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
async def test_a_server_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """Also after an error, and also what does not listen to SIGTERM."""
    with trio.fail_after(GUARD):
        with pytest.raises(KeyError):  # noqa: PT012
            async with running(stub(tmp_path, "a"), tmp_path) as url:
                child = int((tmp_path / "a.child").read_text())
                assert url.startswith("http://127.0.0.1:")
                assert alive(child)
                raise KeyError
        while alive(child):
            await trio.sleep(0.01)


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its last words are in the error."""
    code = "import sys; sys.exit('no such model')"
    bad = Peer("bad", lambda port: [sys.executable, "-c", code])
    with trio.fail_after(GUARD), pytest.raises(PeerFailedError, match="no such model"):
        async with running(bad, tmp_path):
            raise AssertionError


async def test_rounds_are_interleaved_and_summed_up(tmp_path: Path) -> None:
    """A, B, A, B; who does not start is left out; the ratio is to the first."""
    said: list[str] = []
    bad = Peer("bad", lambda port: [sys.executable, "-c", "raise SystemExit(3)"])
    peers = [stub(tmp_path, "a"), bad, stub(tmp_path, "b")]
    with trio.fail_after(GUARD):
        results = await play(peers, Load((1, 2), 1), 2, tmp_path, said.append)
    seen = [(r.round, r.peer, r.users) for r in results]
    assert seen == [(n, name, users) for n in (0, 1) for name in "ab" for users in (1, 2)]
    assert sum("bad did not start" in line for line in said) == 1
    rows = summary(results)
    assert [(row["server"], row["users"]) for row in rows] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
        ("b", 2),
    ]
    for row in rows:
        assert row["tokens_per_answer"] == 4
        assert row["rounds"] == 2
        assert row["failed"] == 0
    assert rows[0]["ratio"] == 1
    console = Console(width=140, record=True, file=(tmp_path / "out").open("w"))
    console.print(table(rows))
    assert "ours / it" in console.export_text()
    assert rounds.MISSING not in [row["ratio"] for row in rows]


def test_a_peer_that_is_missing_is_left_out_with_a_line(tmp_path: Path) -> None:
    """Ours is always there."""
    console = Console(width=140, record=True, file=(tmp_path / "out").open("w"))
    given = command.parse(["--transformers", "/no/such/program", "--llama-server", "/no/such"])
    peers = command.peers_from(given, tmp_path, console)
    assert [peer.name for peer in peers] == ["chatstream-trio"]
    lines = console.export_text().splitlines()
    assert [line.partition(" is left out")[0] for line in lines] == [
        "transformers serve",
        "ChatStream 0.3.0",
        "llama-server",
    ]


@pytest.mark.parametrize(
    "name", ["ours --cache-dir /a/b", "../../etc", "a\nb", "席", "x" * 400, "c:\\d", ""]
)
def test_a_peers_log_has_a_name_that_is_one_part_of_a_path(name: str, tmp_path: Path) -> None:
    """Flags may hold paths: a log can be opened whatever they are, in the folder of the logs."""
    log = tmp_path / f"{file_name(name)}.log"
    log.touch()
    assert list(tmp_path.iterdir()) == [log]
