"""verl's rollout in replay: the time to the last sample of a step, and hits, by router.

    python benches/replay_verl.py [--steps 4] [--seeds 3] [--engine …] [--rate 8]

Every router is called as verl calls it, and learns no more: `acquire_server` with the token ids,
`release_server` at the end, `clear_sticky_cache` at new weights; no first token, no lengths.
`sticky` is the rule of verl's own GlobalRequestLoadBalancer, `least loaded` the same without its
memory.
"""

import argparse
import itertools
import logging
import random
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
from routecore import _core
from routecore.integrations.verl import RoutecoreRouter
from routecore.replay import PROFILES, generate
from routecore.replay.columns import Trace

ENGINES = 8


class Sticky:
    """A conversation stays where it began: at the server with the fewest calls then."""

    def __init__(self, servers: dict[str, int], remembers: bool, seed: int) -> None:
        self._servers, self._remembers = servers, remembers
        self._calls = dict.fromkeys(servers, 0)
        self._homes: dict[str, str] = {}
        self._draws = random.Random(seed)

    def acquire_server(self, request_id: str, **_: Any) -> tuple[str, int]:
        server = self._homes.get(request_id)
        if server is None:
            fewest = min(self._calls.values())
            server = self._draws.choice([s for s, n in self._calls.items() if n == fewest])
            if self._remembers:
                self._homes[request_id] = server
        self._calls[server] += 1
        return server, self._servers[server]

    def release_server(self, server_id: str, request_id: str) -> None:
        self._calls[server_id] -= 1

    def clear_sticky_cache(self) -> None:
        self._homes.clear()


class Uncounted:
    """Takes the place of metrics."""

    def decided(self, seconds: float) -> None: ...
    def shadowed(self, seconds: float) -> None: ...
    def fell_back(self) -> None:
        raise AssertionError("the strategy failed")


class Gateway:
    """Between the simulator and a router as verl has it."""

    def __init__(self, router: Any, clock: list[float], block: int) -> None:
        self._router, self._clock, self._block = router, clock, block
        self._of: dict[int, tuple[str, str]] = {}

    def choose(
        self, now: float, number: int, tokens: int, session: int | None, blocks: bytes
    ) -> int:
        self._clock[0] = now * 1e-3
        if session is None:  # the first call of a step: new weights
            self._router.clear_sticky_cache()
        ids = np.repeat(np.frombuffer(blocks, np.uint32), self._block)[:tokens]
        request = "begin" if session is None else str(session)
        server, handle = self._router.acquire_server(request, prompt_ids=ids.tolist())
        self._of[number] = server, request
        return int(handle)

    def on_end(self, now: float, number: int, endpoint: int, ok: bool) -> None:
        self._clock[0] = now * 1e-3
        server, request = self._of.pop(number)
        self._router.release_server(server, request_id=request)

    def on_first_token(self, *_: Any) -> None: ...
    def on_stats(self, *_: Any) -> None: ...
    def on_down(self, *_: Any) -> None: ...
    def on_up(self, *_: Any) -> None: ...


def routers(seed: int, strategies: list[str]) -> dict[str, Callable[[list[float]], Any]]:
    servers = {f"10.0.0.{at}:8000": at for at in range(ENGINES)}

    def ours(strategy: str) -> Callable[[list[float]], Any]:
        def made(clock: list[float]) -> Any:
            word, *params = strategy.split(":")
            given = {name: float(value) for name, _, value in (p.partition("=") for p in params)}
            file = {"strategy": word, "seed": seed, **given}
            return RoutecoreRouter(servers, file, clock=lambda: clock[0], telemetry=Uncounted())

        return made

    return {
        "sticky (verl's)": lambda _: Sticky(servers, True, seed),
        "least loaded": lambda _: Sticky(servers, False, seed),
        **{strategy: ours(strategy) for strategy in strategies},
    }


def replay(trace: Trace, make: Callable[[list[float]], Any], engine: str, seed: int) -> Any:
    """Seconds to the last sample of each step, and the hit rate."""
    clock = [0.0]
    blocks = PROFILES[engine] // 64
    found = _core.replay(
        trace.core,
        [(engine, 64, blocks, 8192, 256, 1.0)] * ENGINES,
        gateway=Gateway(make(clock), clock, trace.block),
        seed=seed,
    )
    arrival, end = (np.frombuffer(found[name]) for name in ("arrival", "end"))
    sessions = np.frombuffer(trace.core.columns()[2], dtype=np.int64)
    begins = [*np.flatnonzero(sessions == -1), len(sessions)]
    steps = [
        (np.nanmax(end[a:b]) - np.nanmin(arrival[a:b])) * 1e-3
        for a, b in itertools.pairwise(begins[:-1])  # the last step is cut short
    ]
    return statistics.mean(steps), found["token_hit_rate"], found["preemptions"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=8.0, help="4 groups of 16 a step for each 1")
    parser.add_argument("--engine", default="qwen3-32b-h100-tp2", choices=sorted(PROFILES))
    parser.add_argument(
        "--strategy",
        default="expected_latency,prefix_cache",
        help="comma list, of ours; name:param=value",
    )
    given = parser.parse_args()
    logging.disable()
    rows: dict[str, list[tuple[float, float, int]]] = {}
    for seed in range(given.seeds):
        trace = generate("rl", requests=given.requests, rate=given.rate, seed=seed)
        for name, make in routers(seed, given.strategy.split(",")).items():
            rows.setdefault(name, []).append(replay(trace, make, given.engine, seed))
    base = {name: statistics.mean(row[0] for row in found) for name, found in rows.items()}
    print(f"{given.engine}, {ENGINES} engines, rate {given.rate:g}, {given.seeds} seeds")
    print("router | last sample, s | ÷ sticky | ÷ least loaded | hits | preemptions")
    for name, found in rows.items():
        hits = statistics.mean(row[1] for row in found)
        lost = statistics.mean(row[2] for row in found)
        ratios = [
            f"{base[name] / base[other]:.3f}" for other in ("sticky (verl's)", "least loaded")
        ]
        print(" | ".join([name, f"{base[name]:.1f}", *ratios, f"{hits:.3f}", f"{lost:.0f}"]))


if __name__ == "__main__":
    main()
