"""`routecore kv-events check` against a stand-in: what differs is named, with exit code 1."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner
from kv_messages import stored
from kv_sockets import Sockets
from routecore.cli import main


class StandIn(BaseHTTPRequestHandler):
    """Tokenises by bytes and caches nothing, or tells no cached tokens."""

    tells = True

    def answer(self, given: object) -> None:
        body = given.encode() if isinstance(given, str) else json.dumps(given).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/metrics":
            return self.answer("tgi_queue_size 0\n")
        self.answer({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ids = list(str(body.get("prompt")).encode())
        if self.path == "/tokenize":
            return self.answer({"tokens": ids})
        self.publisher.send(stored([len(ids) + k for k in range(4)], None, ids[:16]))
        details = {"prompt_tokens_details": {"cached_tokens": 0}} if self.tells else {}
        self.answer({"usage": {"prompt_tokens": len(ids), **details}})

    def log_message(self, format: str, *args: object) -> None:
        pass

    publisher: Sockets


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("tells", [True, False])
def test_promises_are_compared_with_usage(
    url: str, tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zmq

    with zmq.Context() as context:
        publisher = Sockets(context)
        monkeypatch.setattr(StandIn, "publisher", publisher, raising=False)
        monkeypatch.setattr(StandIn, "tells", tells)
        command = ["kv-events", "check", url, "--events", publisher.address]
        found = CliRunner().invoke(main, [*command, "--replay", publisher.replay])
        publisher.close()
    assert "ok       events: blocks of 4 tokens" in found.output
    if tells:
        assert "differs  promise 2 of 4: 16 promised, 0 found" in found.output
        assert found.exit_code == 1
    else:
        assert "--enable-prompt-tokens-details" in found.output and found.exit_code == 0


def test_who_does_not_answer_is_named() -> None:
    found = CliRunner().invoke(main, ["kv-events", "check", "http://127.0.0.1:1"])
    assert found.exit_code == 2 and "http://127.0.0.1:1: ConnectError" in found.output
