"""The exact index through Python: apply beside Dynamo's RadixTree, and a lookup's parts."""

import itertools
import json
import random
from typing import Any

import msgspec
import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from routecore.kv_events import KVIndex

BLOCK, BLOCKS, HELD = 16, 64, 200
RNG = random.Random(7)


class Prompt:
    """A prompt's hashes and tokens, over a vocabulary of 128,000."""

    def __init__(self, blocks: int) -> None:
        self.hashes = [RNG.getrandbits(63) for _ in range(blocks)]
        self.tokens = [RNG.randrange(128_000) for _ in range(blocks * BLOCK)]

    def message(self) -> bytes:
        """As vLLM publishes it."""
        event = {
            "type": "BlockStored",
            "block_hashes": self.hashes,
            "parent_block_hash": None,
            "token_ids": self.tokens,
            "block_size": BLOCK,
            "medium": "GPU",
            "extra_keys": [None] * len(self.hashes),
            "group_idx": 0,
            "kv_cache_spec_kind": "full_attention",
        }
        return msgspec.msgpack.encode([0.0, [event], 0])

    def removal(self) -> bytes:
        """Of all its blocks."""
        event = {"type": "BlockRemoved", "block_hashes": self.hashes, "medium": "GPU"}
        return msgspec.msgpack.encode([0.0, [event], 0])


WHO = [
    "core, from msgpack and token ids",
    "dynamo, from msgpack and token ids",
    "dynamo, from JSON and hashes",
]


@pytest.mark.parametrize("who", WHO)
def test_apply(benchmark: BenchmarkFixture, who: str) -> None:
    """One prompt stored, the oldest of 200 removed. The peer's own part is the last row alone."""
    benchmark.group = "apply: 64 blocks stored, 64 removed"
    prompts = [Prompt(BLOCKS) for _ in range(2 * HELD)]
    count = itertools.count(HELD)
    if who.startswith("core"):
        stored = [prompt.message() for prompt in prompts]
        removed = [prompt.removal() for prompt in prompts]
        core = KVIndex(seed=7).core
        for seq in range(HELD):
            core.live("http://a", 0, [(seq, stored[seq])], False)
        turn = itertools.count(HELD, 2)

        def apply() -> None:
            at, seq = next(count), next(turn)
            # Both at once, as the subscriber hands over what it finds waiting.
            come, gone = stored[at % (2 * HELD)], removed[(at + HELD) % (2 * HELD)]
            core.live("http://a", 0, [(seq, come), (seq + 1, gone)], False)

    else:
        peer = pytest.importorskip("dynamo._core")
        tree = peer.RadixTree()

        def event(data: Any) -> bytes:
            return json.dumps({"event_id": 0, "data": data}).encode()

        def store(hashes: list[int], tokens: list[int]) -> bytes:
            pairs = zip(hashes, peer.compute_block_hash_for_seq(tokens, BLOCK), strict=True)
            blocks = [{"block_hash": h, "tokens_hash": local} for h, local in pairs]
            return event({"stored": {"parent_hash": None, "blocks": blocks}})

        def remove(hashes: list[int]) -> bytes:
            return event({"removed": {"block_hashes": hashes}})

        stored = [prompt.message() for prompt in prompts]
        removed = [prompt.removal() for prompt in prompts]
        if who.endswith("hashes"):
            stored = [store(prompt.hashes, prompt.tokens) for prompt in prompts]
            removed = [remove(prompt.hashes) for prompt in prompts]
        decode = msgspec.msgpack.decode

        def read(message: bytes) -> bytes:
            if who.endswith("hashes"):
                return message
            (said,) = decode(message)[1]
            if said["type"] == "BlockRemoved":
                return remove(said["block_hashes"])
            return store(said["block_hashes"], said["token_ids"])

        for at in range(HELD):
            tree.apply_event(1, read(stored[at]))

        def apply() -> None:
            at = next(count)
            tree.apply_event(1, read(stored[at % (2 * HELD)]))
            tree.apply_event(1, read(removed[(at + HELD) % (2 * HELD)]))

    benchmark(apply)


@pytest.mark.parametrize("form", ["uint32 buffer", "int64 buffer", "list"])
@pytest.mark.parametrize("urls", [0, 64])
def test_lookup(benchmark: BenchmarkFixture, form: str, urls: int) -> None:
    """2,048 blocks, which all endpoints hold; with one endpoint of none, the hashing alone."""
    benchmark.group = f"lookup: 2,048 blocks, {urls or 'no'} endpoints hold all"
    prompt = Prompt(2048)
    index = KVIndex(seed=7)
    asked = [f"http://{i}" for i in range(urls)] or ["http://empty"]
    for url in asked:
        payload = prompt.message() if urls else Prompt(1).message()
        index.core.live(url, 0, [(0, payload)], False)
    ids: Any = [*prompt.tokens, 1]
    if form != "list":
        ids = np.array(ids, np.uint32 if form.startswith("uint32") else np.int64)
    found = benchmark(index.matched, ids, asked)
    assert found[0][0] == (2048 * BLOCK if urls else 0)
