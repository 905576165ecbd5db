"""Failure modes of routing, each as a replay and the figures that judge it.

One fleet for all: eight engines of one profile, 307,328 KV tokens each, at some 60 % of the load
that it carries. `python benches/replay_modes.py` prints every strategy's figures.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from routecore.replay import ReplayResult, Trace, generate, run

N = 8
ENGINE = "qwen3-32b-h100-tp2"
BLOCK = 64
HALF_S = 50.0
Figures = dict[str, float]
Bools = npt.NDArray[np.bool_]


def replay(trace: Trace, strategy: str, seed: int, **settings: Any) -> ReplayResult:
    """The strategy as it comes, on the fleet."""
    return run(trace, strategy=strategy, seed=seed, endpoints=N, engine=ENGINE, **settings)


def _p99(result: ReplayResult, rows: Bools) -> float:
    return float(np.nanquantile(result.per_request.ttft_ms[rows], 0.99))


def _hit(result: ReplayResult, rows: Bools) -> float:
    each = result.per_request
    return float(each.cached_tokens[rows].sum() / each.input_tokens[rows].sum())


def _between(result: ReplayResult, start_s: float, end_s: float) -> Bools:
    arrival = result.per_request.arrival_ms
    return (arrival >= 1e3 * start_s) & (arrival < 1e3 * end_s)


def imbalance(result: ReplayResult, rows: Bools) -> float:
    """Most against mean requests in flight on an endpoint, over these arrivals."""
    each = result.per_request
    times = np.concatenate((each.arrival_ms, each.end_ms))
    sign = np.repeat((1.0, -1.0), len(each.arrival_ms))
    order = np.argsort(times, kind="stable")
    changes = np.zeros((len(times), N))
    changes[np.arange(len(times)), np.tile(each.endpoint, 2)[order]] = sign[order]
    at = np.flatnonzero(np.isin(order, np.flatnonzero(rows)))
    flying = np.cumsum(changes, axis=0)[at]
    return float(flying.max(axis=1).sum() / flying.mean(axis=1).sum())


@cache
def _classes(hot: bool) -> tuple[Trace, Bools]:
    """Prompts behind 100 prefixes of 4,000 tokens; from half time on 45 % of them behind one more.

    Without `hot`, these keep their time and lengths and are behind one of the 100 too.
    """
    draws, trace, is_hot = np.random.default_rng(5), Trace(BLOCK, "classes"), []
    prefix, now, fresh = 4000 // BLOCK, 0.0, 1_000_000
    while now < 2e3 * HALF_S:
        now += draws.exponential(1e3 / 40)
        rank, output = int(draws.integers(100)), int(draws.integers(100, 300))
        is_hot.append(now > 1e3 * HALF_S and draws.random() < 0.45)
        first = 10_000 if hot and is_hot[-1] else rank * prefix
        ids = [*range(first, first + prefix), *range(fresh, fresh + 5)]
        trace.add(now, (prefix + 5) * BLOCK, output, ids)
        fresh += 5
    return trace, np.array(is_hot)


def hot_prefix(strategy: str, seed: int) -> Figures:
    """One prefix becomes 45 % of the traffic at half time."""
    trace, is_hot = _classes(True)
    found, without = (
        replay(trace, strategy, seed),
        replay(_classes(False)[0], strategy, seed),
    )
    late = _between(found, HALF_S, math.inf)
    return {
        "max/mean in flight": imbalance(found, late),
        "p99 against without": _p99(found, late) / _p99(without, late),
        "holders, first second": len(_holders(found, is_hot, HALF_S, HALF_S + 1)),
        "holders at the end": len(_holders(found, is_hot, 2 * HALF_S - 10, math.inf)),
    }


def _holders(result: ReplayResult, rows: Bools, start_s: float, end_s: float) -> set[int]:
    each = result.per_request
    held = rows & _between(result, start_s, end_s) & (each.cached_tokens >= 62 * BLOCK)
    return set(each.endpoint[held].tolist())


@cache
def _lone(rate: float, long_share: float = 0.0) -> Trace:
    """Prompts that share nothing: heavy-tailed, or 500 tokens with a share of 100,000."""
    draws, trace, now = np.random.default_rng(6), Trace(BLOCK, "lone"), 0.0
    for _ in range(4000):
        now += draws.exponential(1e3 / rate)
        tokens = min(int(draws.lognormal(math.log(1500), 1.0)) + 1, 60_000)
        if long_share:
            tokens = 100_000 if draws.random() < long_share else 500
        trace.add(now, tokens, int(draws.integers(100, 300)))
    return trace


def stale_stats(strategy: str, seed: int, period_ms: float, routers: int) -> Figures:
    """Engine stats are so old, and so many routers do not know of each other."""
    found = replay(_lone(35), strategy, seed, stats_period_ms=period_ms, routers=routers)
    each = found.per_request
    tokens = np.bincount(each.endpoint, weights=each.input_tokens)
    return {
        "p99": found.ttft_ms.p99,
        "max share": found.max_share,
        "max share of tokens": float(tokens.max() / tokens.sum()),
    }


@cache
def _chats() -> Trace:
    return generate("chat", requests=8000, rate=70, seed=4)


def cold_start(strategy: str, seed: int) -> Figures:
    """The eighth endpoint joins at half time, against the same minute without it."""
    join = replay(_chats(), strategy, seed, events=[f"join@{HALF_S}s:{N - 1}"])
    never = replay(_chats(), strategy, seed, events=[f"join@1000m:{N - 1}"])
    minute = _between(join, HALF_S, HALF_S + 60)
    as_before = _between(never, HALF_S, HALF_S + 60)
    return {
        "p99 against without": _p99(join, minute) / _p99(never, as_before),
        "hit dip": _hit(never, as_before) - _hit(join, minute),
        "moved sessions": _moved(join) - _moved(never),
        "recovery s": _recovery(join),
    }


def _moved(result: ReplayResult) -> float:
    """Of the sessions that go on after half time, those whose next turn is elsewhere."""
    each = result.per_request
    order = np.lexsort((each.arrival_ms, each.session))
    session, endpoint = each.session[order], each.endpoint[order]
    late = each.arrival_ms[order] >= 1e3 * HALF_S
    across = (session[1:] == session[:-1]) & late[1:] & ~late[:-1]
    return float((endpoint[1:] != endpoint[:-1])[across].mean())


def _recovery(result: ReplayResult) -> float:
    """Seconds until the newcomer gets 80 % of its share in a window of five."""
    for start in np.arange(HALF_S, HALF_S + 55, 1.0):
        share = result.per_request.endpoint[_between(result, start, start + 5)] == N - 1
        if share.mean() >= 0.8 / N:
            return float(start - HALF_S)
    return math.inf


def long_prompts(strategy: str, seed: int) -> Figures:
    """1 % of prompts have 100,000 tokens: some 13 s of prefill that others may queue behind."""
    found = replay(_lone(30, 0.01), strategy, seed).per_request
    short = found.input_tokens < 1000
    return {"p90 of short": float(np.nanquantile(found.ttft_ms[short], 0.9))}


def unequal_speeds(strategy: str, seed: int, slower: float) -> Figures:
    """Half of the endpoints are slower, and nobody knows; against least connections that knows."""
    speeds = [1.0, 1 / slower] * (N // 2)
    rate = 35 * sum(speeds) / N
    known = {"endpoint_weights": {str(at): speed for at, speed in enumerate(speeds)}}
    oracle = replay(_lone(rate), "least_connections", seed, speeds=speeds, params=known)
    found = replay(_lone(rate), strategy, seed, speeds=speeds)
    return {"p99 against oracle": found.ttft_ms.p99 / oracle.ttft_ms.p99}


def failure_and_restart(strategy: str, seed: int) -> Figures:
    """An endpoint dies with requests on it, and comes back empty after half a minute."""
    found = replay(_chats(), strategy, seed, events=["fail@30s:3", "join@60s:3"])
    to_dead = (found.per_request.endpoint == 3) & _between(found, 30.001, 60)
    after = (found.per_request.endpoint == 3) & _between(found, 60, 90)
    return {
        "sent to the dead": int(to_dead.sum()),
        "served after": float(after.sum() / _between(found, 60, 90).sum()),
    }


def killed(strategy: str, seed: int) -> Figures:
    """An endpoint dies with requests on it and stays away; those without a token are sent again."""
    found = replay(_chats(), strategy, seed, events=["fail@30s:3"])
    return {"failed": found.failed / found.requests}


def sick(strategy: str, seed: int) -> Figures:
    """An endpoint answers every request with an error for 20 s, and nobody sends them again."""
    found = replay(_chats(), strategy, seed, events=["sick@30s:3:20s"])
    late = _between(found, 60, 80)
    return {
        "failed": found.failed / found.requests,
        "share after": float((found.per_request.endpoint[late] == 3).mean()),
    }


def goes_back(strategy: str, seed: int) -> bool:
    """Whether a prompt goes back to the one of two endpoints that lost it with its restart."""
    trace, ids = Trace(BLOCK, "restart"), list(range(100))
    for arrival in (0, 60_000):
        trace.add(arrival, 6400, 200, ids)
    settings: Any = {"strategy": strategy, "seed": seed, "endpoints": 2, "engine": ENGINE}
    holder = int(run(trace, **settings).per_request.endpoint[0])
    events = [f"fail@1s:{holder}", f"join@10s:{holder}"]
    found = run(trace, **settings, events=events).per_request
    return bool(found.endpoint[1] == holder)


@cache
def _circle(pause_ms: float = 5e3) -> Trace:
    """96 sessions of some 16,000 tokens, 25 turns each, five seconds between them."""
    draws, trace, fresh = np.random.default_rng(7), Trace(BLOCK, "circle"), 0
    for session in range(96):
        ids, length, last = list(range(fresh, fresh + 1000)), 13_000, -1
        fresh += 1000
        start = float(draws.uniform(0, 8e3))
        for _ in range(25):
            prompt, output = length + 150, int(draws.integers(50, 150))
            length = prompt + output
            after = [last] if last >= 0 else []
            needed = ids[: -(-length // BLOCK)]
            delay = float(draws.exponential(pause_ms))
            last = trace.add(
                start, prompt, output, needed, session=session, after=after, delay_ms=delay
            )
    return trace


def thrash(strategy: str, seed: int, working_set: float) -> Figures:
    """The working set is so many times what all KV caches hold."""
    blocks = int(96 * 16_000 / working_set / N / BLOCK)
    found = replay(_circle(), strategy, seed, kv_blocks=blocks)
    good = found.goodput * found.requests
    return {"good requests a second": good / (found.makespan_ms * 1e-3)}


RATES = {"chat": 70.0, "agentic": 1.5, "documents": 12.0}


@cache
def below_the_knee(kind: str) -> Trace:
    """A generated workload at some 60 % of what the fleet carries."""
    return generate(kind, requests=3000, rate=RATES[kind], seed=8)


def oscillation(strategy: str, seed: int, kind: str) -> Figures:
    """Nothing happens: sessions have no reason to move."""
    found = replay(below_the_knee(kind), strategy, seed)
    return {"flips a session": found.flips_per_session, "max share": found.max_share}


MODES: dict[str, Callable[[str, int], Figures]] = {
    "hot prefix": hot_prefix,
    "stale 5 s, 4 routers": lambda s, seed: stale_stats(s, seed, 5000, 4),
    "cold start": cold_start,
    "long prompts": long_prompts,
    "half 2x slower": lambda s, seed: unequal_speeds(s, seed, 2),
    "half 4x slower": lambda s, seed: unequal_speeds(s, seed, 4),
    "failure": failure_and_restart,
    "killed": killed,
    "sick": sick,
    "working set 0.5": lambda s, seed: thrash(s, seed, 0.5),
    "working set 1": lambda s, seed: thrash(s, seed, 1),
    "working set 2": lambda s, seed: thrash(s, seed, 2),
    "agents": lambda s, seed: oscillation(s, seed, "agentic"),
    "chats": lambda s, seed: oscillation(s, seed, "chat"),
    "documents": lambda s, seed: oscillation(s, seed, "documents"),
}
"""Name → what it does to a strategy, for the table of all."""
