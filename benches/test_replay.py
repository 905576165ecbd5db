"""One replay of the conversation trace, from file to figures: ours, and Dynamo's own simulator.

Both model the same engines, and both give the same figures (`rust/replay/tests/reference.rs`).
Dynamo's is run where `ai-dynamo` is installed; nothing of ours needs it.
"""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from replay.traces_dir import reference
from routecore.replay import read_trace, run

ENDPOINTS, BLOCK, KV_BLOCKS = 8, 64, 16_384


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trace unpacked, since not every reader takes gzip."""
    path = tmp_path_factory.mktemp("trace") / "conversation.jsonl"
    path.write_bytes(
        gzip.decompress(reference("mooncake_conversation_trace.jsonl.gz").read_bytes())
    )
    return path


def ours(path: Path) -> float:
    result = run(
        read_trace(path),
        strategy="round_robin",
        endpoints=ENDPOINTS,
        block_size=BLOCK,
        kv_blocks=KV_BLOCKS,
    )
    return result.ttft_ms.mean


def dynamos(path: Path) -> float:
    replay = pytest.importorskip("dynamo.replay", reason="ai-dynamo is not installed")
    engine = {"block_size": BLOCK, "num_gpu_blocks": KV_BLOCKS}
    found = replay.run_trace_replay(
        str(path),
        extra_engine_args={"engine": engine},
        num_workers=ENDPOINTS,
        router_mode="round_robin",
        trace_block_size=512,
    )
    return float(found.summary["mean_ttft_ms"])


@pytest.mark.parametrize("simulator", [ours, dynamos])
@pytest.mark.benchmark(group="conversation trace, 8 endpoints, file to figures")
def test_replay(benchmark: Any, simulator: Callable[[Path], float], trace: Path) -> None:
    assert benchmark(simulator, trace) == pytest.approx(321.14, rel=0.01)
