"""Serve one request from the installed package, as a stranger would: exit code 0 if it works."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request

QUESTION = "What is a seat?"


def main() -> None:
    """Start the server on the demo model, stream one answer, look at its docs, stop it."""
    command = [sys.executable, "-m", "chatstream_trio", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = wait_for_url(server)
            answer = ask(url)
            look_at_the_docs(url)
        finally:
            server.send_signal(signal.SIGTERM)
            _, said = server.communicate()
    print(f"> {QUESTION}\n{answer}")
    if not answer.strip() or server.returncode != 0:
        sys.exit(f"no answer, or exit code {server.returncode}; its last words:\n{said}")


def wait_for_url(server: subprocess.Popen[str]) -> str:
    """Read the server's stderr until it says where it listens."""
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if match := re.match(r"Listening on (http://\S+)", line):
            return match[1]
    sys.exit("the server did not start:\n" + "".join(said))


def ask(url: str) -> str:
    """Stream one answer."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "stream": True, "temperature": 0}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    pieces = []
    with urllib.request.urlopen(request, timeout=60) as response:
        for line in response:
            if line.startswith(b"data: {"):
                delta = json.loads(line[6:])["choices"][0]["delta"]
                pieces.append(delta.get("content") or "")
    return "".join(pieces)


def look_at_the_docs(url: str) -> None:
    """The page's parts came with the package."""
    with urllib.request.urlopen(f"{url}/docs", timeout=60) as response:
        parts = re.findall(r'(?:src|href)="(docs/[^"]+)"', response.read().decode())
    for part in ["openapi.json", *parts]:
        with urllib.request.urlopen(f"{url}/{part}", timeout=60) as response:
            assert response.read(), part


if __name__ == "__main__":
    main()
