"""Lookups while events arrive: percentiles quiet, and under a load of blocks per second.

    python benches/kv_load.py [--rate 200000] [--seconds 5]

The events come from another thread, encoded beforehand, as the subscriber hands them over.
"""

import argparse
import threading
import time

import numpy as np
from routecore.kv_events import KVIndex
from test_kv_events import BLOCKS, Prompt

ENGINES, PROMPTS = 16, 400


def percentiles(index: KVIndex, asked: list[np.ndarray], seconds: float) -> tuple[float, float]:
    """Median and p99 of lookups, in µs."""
    urls = [f"http://{i}" for i in range(ENGINES)]
    times, end, at = [], time.perf_counter() + seconds, 0
    while (start := time.perf_counter()) < end:
        index.matched(asked[at % len(asked)], urls)
        times.append(time.perf_counter() - start)
        at += 1
        time.sleep(0.0002)  # as between requests: an event loop lets other threads run
    times.sort()
    return times[len(times) // 2] * 1e6, times[int(len(times) * 0.99)] * 1e6


def main() -> None:
    """Print both."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rate", type=float, default=200_000, help="blocks per second")
    options.add_argument("--seconds", type=float, default=5.0)
    given = options.parse_args()
    index = KVIndex(seed=7)
    prompts = [Prompt(BLOCKS) for _ in range(2 * PROMPTS)]
    stored = [prompt.message() for prompt in prompts]
    removed = [prompt.removal() for prompt in prompts]
    long = Prompt(2048)
    seqs = [0] * ENGINES

    def send(engine: int, payloads: list[bytes]) -> None:
        messages = [(seqs[engine] + i, payload) for i, payload in enumerate(payloads)]
        seqs[engine] += len(payloads)
        assert index.core.live(f"http://{engine}", 0, messages, False) is None

    for engine in range(ENGINES):
        send(engine, [long.message(), *stored[:PROMPTS]])
    stop = threading.Event()
    applied = 0

    def feed() -> None:
        nonlocal applied
        start, turn = time.perf_counter(), 0
        while not stop.is_set():
            due = int((time.perf_counter() - start) * given.rate) - applied
            for _ in range(min(due // (2 * BLOCKS), ENGINES)):
                engine, at = turn % ENGINES, turn // ENGINES
                payloads = [
                    stored[(at + PROMPTS) % (2 * PROMPTS)],
                    removed[at % (2 * PROMPTS)],
                ]
                send(engine, payloads)
                turn += 1
                applied += 2 * BLOCKS
            time.sleep(0.001)

    asked = [np.array([*long.tokens, 1], np.uint32)]
    asked += [np.array([*prompt.tokens, 1], np.uint32) for prompt in prompts[:50]]
    for name, ids in (("2,048 blocks", asked[:1]), ("64 blocks", asked[1:])):
        quiet = percentiles(index, ids, given.seconds)
        stop.clear()
        applied = 0
        feeding = threading.Thread(target=feed)
        feeding.start()
        begun = time.perf_counter()
        busy = percentiles(index, ids, given.seconds)
        rate = applied / (time.perf_counter() - begun)
        stop.set()
        feeding.join()
        print(
            f"{name}, {ENGINES} endpoints: quiet p50 {quiet[0]:.1f} p99 {quiet[1]:.1f} µs; "
            f"at {rate:,.0f} blocks/s p50 {busy[0]:.1f} p99 {busy[1]:.1f} µs; "
            f"p99 {busy[1] / quiet[1]:.2f} times"
        )


if __name__ == "__main__":
    main()
