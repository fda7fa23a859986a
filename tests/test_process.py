"""The program as a person runs it: a process, its exit codes, its signals, its words."""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from attrs import define, field

GUARD = 60.0
COMMAND = [sys.executable, "-m", "chatstream_trio"]


@define
class Server:
    """``chatstream-trio serve`` in a process, and what it says."""

    process: subprocess.Popen[str]
    url: str = ""
    said: list[str] = field(factory=list)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read its stderr until a line matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"no {pattern!r} in {self.said}")

    def end(self, signal_number: int = signal.SIGTERM) -> int:
        """Signal it, wait for its end, keep its last words."""
        self.process.send_signal(signal_number)
        _, rest = self.process.communicate(timeout=GUARD)
        self.said += rest.splitlines(keepends=True)
        return self.process.returncode


@contextmanager
def running(*flags: str, wait: bool = True) -> Iterator[Server]:
    """A server on a free port; it is killed if the test did not end it."""
    command = [*COMMAND, "serve", "--port", "0", "--model", "scripted", *flags]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        watchdog = threading.Timer(GUARD, process.kill)
        watchdog.start()
        try:
            server = Server(process)
            if wait:
                server.url = server.wait_for(r"Listening on (http://127\.0\.0\.1:\d+)$")[1]
            yield server
        finally:
            watchdog.cancel()
            process.kill()


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "a b"}], "stream": True, **fields}


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
        **options,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    """Law 11: exit code 0 and no traceback; an idle keep-alive connection does not hold it up."""
    with running() as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/health").json() == {"status": "ok"}
        assert server.end(number) == 0
        assert "".join(server.said) == f"Listening on {server.url}\n"


def test_localhost_is_both_families() -> None:
    """--host localhost: whichever a client tries, and by whichever name."""
    with running("--host", "localhost", wait=False) as server:
        port = int(server.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)$")[1])
        hosts = ["127.0.0.1", "localhost"]
        if has_ipv6():
            server.wait_for(rf"Listening on http://\[::1\]:{port}$")
            hosts.append("[::1]")
        for host in hosts:
            assert httpx.get(f"http://{host}:{port}/health").json() == {"status": "ok"}
        assert server.end() == 0


def has_ipv6() -> bool:
    """Whether this machine has the loopback address of IPv6."""
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize(("flags", "seconds"), [((), 65), (("--keep-alive", "7"), 7)])
def test_replies_say_how_long_a_connection_is_kept(flags: tuple[str, ...], seconds: int) -> None:
    """Idle connections are kept for a while, and clients are told for how long."""
    with running(*flags) as server, httpx.Client(base_url=server.url) as client:
        for _ in range(2):
            assert client.get("/health").headers["keep-alive"] == f"timeout={seconds}"


def test_drain_lets_a_stream_finish_and_refuses_the_next() -> None:
    """Law 11: after SIGTERM it still accepts, answers 503, and waits for what runs."""
    with running("--drain-seconds", "50") as server:
        url = f"{server.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body(max_tokens=100), timeout=GUARD) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("Draining 1 request")
            refused = httpx.post(url, json=body())
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "draining"
            assert httpx.get(f"{server.url}/health").status_code == 503
            rest = list(lines)
        assert rest[-2] == "data: [DONE]"
        assert sum('"content":"a "' in line for line in rest) == 50
        assert server.process.wait(GUARD) == 0


@pytest.mark.parametrize("flags", [("--drain-seconds", "0.2"), ("--drain-seconds", "1000")])
def test_what_is_left_is_cut_with_an_error_event(flags: tuple[str, str]) -> None:
    """Law 11: when the time has passed, or a second signal comes."""
    with running(*flags) as server:
        url = f"{server.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body(), timeout=GUARD) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("Draining 1 request")
            if flags[1] == "1000":
                server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data: ")]
        assert json.loads(rest[-1][6:])["error"]["code"] == "draining"
        assert server.process.wait(GUARD) == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--port", "99999"), "port must be from 0 to 65535"),
        (("--max-active", "0"), "max_active must be from 1"),
        (("--host", "a" * 70), "cannot listen on aaa"),
        (("--host", "a..b"), "cannot listen on a..b"),
        (("--keep-alive", "0"), "keep_alive must be from 1"),
        (("--allowed-host", "http://a"), "allowed_host must be a host name"),
        (("--cors-origin", "a.example"), "cors_origin must be an origin"),
        (("--proxy-header", "x-real-ip"), "proxy_header must be one of x-forwarded-for"),
        (("--kv-memory", "plenty"), "kv_memory must be a size such as 2GiB"),
        (("--max-active", "two"), "--max-active"),
        (("--no-such-flag",), "no-such-flag"),
        (("--model", "/no/such/model"), "no model folder at '/no/such/model'"),
        (("--model", "./nothing-here"), "no model folder"),
        (("--model", "scripted:soon"), "milliseconds"),
        (("--device", "toaster"), "device must be one of auto, cpu, cuda"),
        (("--embedding-model", "/no/such/model"), "no model folder at '/no/such/model'"),
        (("--pooling", "max"), "pooling must be one of mean, last"),
        (("--config", "/no/such.toml"), "cannot read /no/such.toml"),
    ],
)
def test_a_wrong_setting_is_one_line_and_code_2(flags: tuple[str, ...], words: str) -> None:
    """Section 5: one line on stderr that says what is wrong, and exit code 2."""
    done = run("serve", *flags)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert words in line


def test_an_embedding_model_that_cannot_be_loaded_is_code_2(tmp_path: Path) -> None:
    """One line, and the chat model that is there hides nothing."""
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "t5"}')
    done = run("serve", "--model", "scripted", "--embedding-model", str(folder), "--port", "0")
    assert done.returncode == 2
    assert "'second'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_one_line_and_code_2() -> None:
    """Before anything is begun."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("serve", "--model", "scripted", "--port", str(port))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1 port {port}" in line


def test_flag_beats_variable_beats_file(tmp_path: Path) -> None:
    """Section 5: every setting is a flag, a variable and a key of the same name."""
    file = tmp_path / "settings.toml"
    file.write_text('max_active = 3\nmax_waiting = 30\ndrain_seconds = 1\nmodel = "scripted"\n')
    environment = {"CHATSTREAM_MAX_ACTIVE": "4", "CHATSTREAM_MAX_WAITING": "40", "PATH": ""}
    code = (
        "import chatstream_trio.cli as c, chatstream_trio.serving as s\n"
        "async def run_server(settings, *rest): print(settings); return False\n"
        "s.run_server = run_server\n"
        f"c.main(['serve', '--port', '0', '--max-active', '5', '--config', {str(file)!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**environment, "PYTHONPATH": ":".join(sys.path)},
        timeout=GUARD,
        check=True,
    )
    for wanted in ("max_active=5", "max_waiting=40", "drain_seconds=1.0", "model='scripted'"):
        assert wanted in done.stdout


@pytest.mark.parametrize(
    ("text", "words"), [("max_active = = 3", "not valid TOML"), ("odd = 3", "odd")]
)
def test_a_broken_file_is_one_line_and_code_2(tmp_path: Path, text: str, words: str) -> None:
    """Nothing in a file is silently ignored."""
    file = tmp_path / "settings.toml"
    file.write_text(text)
    done = run("serve", "--config", str(file))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line


def test_faults_on_demand() -> None:
    """Law 8, by the scripted model's own words: a fault, a raising turn, and a lost runner."""
    with running() as server:
        url = f"{server.url}/v1/chat/completions"

        def ask(text: str) -> httpx.Response:
            messages = [{"role": "user", "content": text}]
            return httpx.post(url, json={"messages": messages, "max_tokens": 3}, timeout=GUARD)

        for word, code, status in [
            ("!fault", "stream_fault", 500),
            ("!raise", "stream_fault", 500),
        ]:
            broken = ask(f"a {word}")
            assert (broken.status_code, broken.json()["error"]["code"]) == (status, code)
            assert ask("a").status_code == 200
        lost = ask("a !lost")
        assert (lost.status_code, lost.json()["error"]["code"]) == (500, "stream_fault")
        while (answer := ask("b")).status_code == 503:
            assert answer.headers["retry-after"]
        assert answer.json()["choices"][0]["message"]["content"] == "b b b "


def test_the_console_chats_and_says_when_nobody_answers() -> None:
    """``chatstream-trio chat``: an answer for each line, the conversation kept, exit code 0."""
    with running() as server:
        done = run("chat", server.url, "--max-tokens", "3", input="one two\n/new\nthree\n")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "one two one \nthree three three \n"
        url = server.url
        assert server.end() == 0
    done = run("chat", url, input="hello\n")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "no server answers" in line


def test_ctrl_c_stops_the_answer_and_not_the_program() -> None:
    """The seat is free again, and the next question is answered."""
    with (
        running("--max-active", "1") as server,
        subprocess.Popen(
            [*COMMAND, "chat", server.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as talk,
    ):
        assert talk.stdin is not None
        assert talk.stdout is not None
        talk.stdin.write("forever \n")
        talk.stdin.flush()
        assert talk.stdout.read(8) == "forever "
        talk.send_signal(signal.SIGINT)
        said = ""
        while "[stopped]\n" not in said:
            more = talk.stdout.read(1)
            assert more, said
            said += more
        while httpx.get(f"{server.url}/status").json()["active"]:
            pass
        out, _ = talk.communicate("/exit\n", timeout=GUARD)
        assert (talk.returncode, out) == (0, "")


def test_nobody_listens_to_its_last_words() -> None:
    """Law 11: the exit code is 0 also when whoever read its stderr has gone before the drain."""
    command = [*COMMAND, "serve", "--model", "scripted", "--port", "0", "--drain-seconds", "0.1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = server.stderr.readline().strip().removeprefix("Listening on ")
        body = {"messages": [{"role": "user", "content": "forever"}], "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            server.stderr.close()
            server.send_signal(signal.SIGTERM)
            assert "draining" in [line for line in lines if line][-1]
        server.wait(GUARD)
    assert server.returncode == 0


def certify(folder: Path) -> tuple[list[str], bytes]:
    """Write a new certificate and its key there; the flags that name them, and the certificate."""
    identity = trustme.CA().issue_cert("localhost", "127.0.0.1")
    cert, key = folder / "cert.pem", folder / "key.pem"
    identity.cert_chain_pems[0].write_to_path(cert)
    identity.private_key_pem.write_to_path(key)
    return ["--certfile", str(cert), "--keyfile", str(key)], identity.cert_chain_pems[0].bytes()


def test_a_hangup_reads_the_certificate_again(tmp_path: Path) -> None:
    """New connections get the new one, what runs goes on; broken files change nothing."""
    flags, old = certify(tmp_path)
    with running(*flags, wait=False) as server:
        url = server.wait_for(r"Listening on (https://127\.0\.0\.1:\d+)$")[1]
        address = ("127.0.0.1", int(url.rpartition(":")[2]))

        def shown() -> bytes:
            return ssl.get_server_certificate(address).encode()

        with httpx.Client(verify=False, timeout=GUARD, base_url=url) as client:
            call = client.stream("POST", "/v1/chat/completions", json=body(max_tokens=150))
            with call as stream:
                lines = stream.iter_lines()
                next(lines)
                assert shown() == old
                _, new = certify(tmp_path)
                server.process.send_signal(signal.SIGHUP)
                server.wait_for(r"^Read .*cert\.pem again$")
                assert shown() == new
                for name, bad, words in [
                    ("key.pem", old, "key.pem"),
                    ("key.pem", b"", "key.pem"),
                    ("cert.pem", b"nonsense", "cert.pem"),
                    ("cert.pem", None, "cannot read .*cert.pem"),
                ]:
                    file = tmp_path / name
                    if bad is None:
                        file.unlink()
                    else:
                        file.write_bytes(bad)
                    server.process.send_signal(signal.SIGHUP)
                    server.wait_for(rf"^The old certificate stays: .*{words}")
                    assert shown() == new
                assert "data: [DONE]" in list(lines)
        assert server.end() == 0
        assert len([line for line in server.said if "Draining" not in line]) == 1 + 1 + 4


@pytest.mark.parametrize("when", ["serving", "draining"])
def test_a_hangup_ends_nothing(when: str) -> None:
    """Nor does it say anything, where there is no certificate to read."""
    with running("--drain-seconds", "50") as server:
        call = httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=body(max_tokens=60), timeout=GUARD
        )
        with call as stream:
            lines = stream.iter_lines()
            next(lines)
            if when == "draining":
                server.process.send_signal(signal.SIGTERM)
                server.wait_for("Draining 1 request")
            for _ in range(3):
                server.process.send_signal(signal.SIGHUP)
            assert "data: [DONE]" in list(lines)
        if when == "serving":
            assert httpx.get(f"{server.url}/health").status_code == 200
            assert server.end() == 0
        else:
            assert server.process.wait(GUARD) == 0
        assert "cert" not in "".join(server.said)


def test_https_from_the_command_line(tmp_path: Path) -> None:
    """--certfile and --keyfile; and one line with code 2 when they are no good."""
    flags, _ = certify(tmp_path)
    key = tmp_path / "key.pem"
    with running(*flags, wait=False) as server:
        url = server.wait_for(r"Listening on (https://127\.0\.0\.1:\d+)$")[1]
        assert httpx.get(f"{url}/health", verify=False).json() == {"status": "ok"}
        assert server.end() == 0
    for bad, words in [
        (["--certfile", "/no/such.pem"], "/no/such.pem"),
        (["--certfile", str(key)], "certificate"),
        (["--keyfile", str(key)], "keyfile needs a certfile"),
    ]:
        done = run("serve", "--model", "scripted", "--port", "0", *bad)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert words in line
