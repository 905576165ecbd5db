"""A vLLM server in the hands of a test: started, asked, killed, started again."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
from ports import free_ports
from routecore.kv_events import KVSource

STARTS_WITHIN = 420.0
TEMPLATES = Path(__file__).parent / "templates"
"""Chat templates that use what the public ones do."""
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_SERVER_DEV_MODE": "1",  # for /reset_prefix_cache
}


class Engine:
    """One server with KV events.

    Args:
        python: Of the environment that has vLLM.
        model: Folder of the model.
        log: Where the server writes.
        blocks: Of its KV cache, 32 tokens each.
        more: Further options of the server.
    """

    block = 32

    def __init__(
        self, python: str, model: Path, log: Path, *, blocks: int = 400, more: tuple[str, ...] = ()
    ) -> None:
        self._python, self._model, self.log = python, model, log
        self.blocks, self._more = blocks, more
        port, self.events, self.replay = free_ports(3)
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=self.url, timeout=60.0, trust_env=False)

    @property
    def source(self) -> KVSource:
        """Where it publishes."""
        address = "tcp://127.0.0.1:{}"
        return KVSource(self.url, address.format(self.events), replay=address.format(self.replay))

    def launch(self) -> None:
        """Start the process, without waiting for it."""
        events = (
            '{"enable_kv_cache_events": true, "publisher": "zmq", '
            f'"endpoint": "tcp://*:{self.events}", "replay_endpoint": "tcp://*:{self.replay}"}}'
        )
        command = [self._python, "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(self._model), "--served-model-name", "tiny"]
        command += ["--host", "127.0.0.1", "--port", str(self._port), "--max-model-len", "8192"]
        command += ["--enforce-eager", "--dtype", "float32", "--block-size", str(self.block)]
        command += ["--max-num-seqs", "16", "--num-gpu-blocks-override", str(self.blocks)]
        command += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
        command += ["--trust-request-chat-template", "--kv-events-config", events]
        command += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", *self._more]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **ENVIRONMENT},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < end:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            with contextlib.suppress(httpx.HTTPError):
                if self.http.get("/health").status_code == 200:
                    return
            time.sleep(0.5)
        raise AssertionError(f"vLLM did not start; its log ends:\n{self.tail()}")

    def kill(self) -> None:
        """End it and all its processes without a word."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it for good."""
        self.kill()
        self.http.close()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", "replace")[-3000:]

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        """Ask, with the model's name."""
        return self.http.post(path, json={"model": "tiny", **body})

    def ids(self, body: dict[str, Any]) -> list[int] | None:
        """The prompt's token ids as it was served; None if it was refused."""
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        answer = self.post(path, {**body, "max_tokens": 1, "return_token_ids": True})
        if answer.status_code != 200:
            return None
        given = answer.json()
        ids = given.get("prompt_token_ids") or given["choices"][0].get("prompt_token_ids")
        assert ids is not None, given
        return list(ids)

    def serve(self, body: dict[str, Any]) -> tuple[int, int, dict[str, Any]]:
        """Prompt tokens, those found in its cache, and the answer."""
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        answer = self.post(path, body)
        assert answer.status_code == 200, answer.text
        given = answer.json()
        usage = given["usage"]
        details = usage.get("prompt_tokens_details") or {}
        return usage["prompt_tokens"], details.get("cached_tokens") or 0, given
