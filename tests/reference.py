"""The naive twins: every strategy as one would first write it, over dicts and dataclasses."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import xxhash

MASK = 2**64 - 1
Name = TypeVar("Name")
HIGHER_IS_BETTER = {"gpu_prefix_cache_hit_rate"}
SHARES = {"gpu_cache_usage_perc"}
OF_REQUESTS = {"qps", "ttft", "avg_latency", "in_prefill_requests", "in_decoding_requests"}
ZERO_IF_UNSEEN = {"qps", "in_prefill_requests", "in_decoding_requests"}


@dataclass
class ForeignEndpoint:
    """A host's endpoint: only what a router must find."""

    url: str
    sleep: bool = False
    healthy: bool = True


@dataclass
class ForeignEngine:
    """A host's engine stats, without `active_connections`."""

    num_running_requests: Any = 0
    num_queuing_requests: Any = 0
    gpu_prefix_cache_hit_rate: Any = 0.0
    gpu_cache_usage_perc: Any = 0.0


@dataclass
class ForeignRequests:
    """A host's request stats."""

    qps: Any = 0.0
    ttft: Any = -1
    in_prefill_requests: Any = 0
    in_decoding_requests: Any = 0
    avg_latency: Any = -1


def eligible(endpoints: Sequence[Any]) -> list[str]:
    """URLs that may be chosen; of several endpoints with one URL the first counts."""
    first: dict[str, Any] = {}
    for endpoint in endpoints:
        first.setdefault(endpoint.url, endpoint)
    return [
        url
        for url, e in first.items()
        if getattr(e, "healthy", True) and not getattr(e, "sleep", False)
    ]


def number(value: Any) -> float | None:
    """A finite number from 0 up; None for all else."""
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        return None
    return float(value)


def total(*values: Any) -> float | None:
    """The sum, None if a part is not known."""
    known = [number(value) for value in values]
    return None if None in known else sum(v for v in known if v is not None)


def fill(values: Mapping[Name, float | None]) -> dict[Name, float]:
    """Unknown values get the lower median of the known ones; none known: 0 for all."""
    known = sorted(value for value in values.values() if value is not None)
    middle = known[(len(known) - 1) // 2] if known else 0.0
    return {url: middle if value is None else value for url, value in values.items()}


def loads(
    endpoints: Sequence[Any], engine: Mapping[str, Any] | None, seen: Mapping[str, Any] | None
) -> dict[str, float]:
    """Load per eligible endpoint: engines' connections if any reports, else what was sent."""

    def load(url: str) -> float | None:
        stats = (engine or seen or {}).get(url)
        if stats is None:
            return None if engine else 0.0
        if not engine:
            return total(stats.in_prefill_requests, stats.in_decoding_requests)
        if hasattr(stats, "active_connections"):
            return number(stats.active_connections)
        return total(stats.num_running_requests, stats.num_queuing_requests)

    return fill({url: load(url) for url in eligible(endpoints)})


def costs(load: Mapping[str, float], capacity: Mapping[str, float] | None) -> dict[str, float]:
    """Load, or (load + 1) per capacity where capacities are given."""
    if not capacity:
        return dict(load)
    return {url: (x + 1) / capacity.get(url, 1.0) for url, x in load.items()}


def least(cost: Mapping[str, float]) -> list[str]:
    """All that cost the least, in list order."""
    lowest = min(cost.values())
    return [url for url, value in cost.items() if value == lowest]


def least_connections(
    endpoints: Sequence[Any],
    engine: Mapping[str, Any] | None,
    seen: Mapping[str, Any] | None,
    capacity: Mapping[str, float] | None = None,
) -> str:
    """The first of the least loaded."""
    return least(costs(loads(endpoints, engine, seen), capacity))[0]


def power_of_two_may_pick(cost: Mapping[str, float]) -> list[str]:
    """What can win against some other endpoint: all but a single worst one."""
    if len(cost) == 1:
        return list(cost)
    return [u for u, x in cost.items() if any(x <= y for v, y in cost.items() if v != u)]


def power_of_two(
    endpoints: Sequence[Any],
    engine: Mapping[str, Any] | None,
    seen: Mapping[str, Any] | None,
    rng: random.Random,
) -> str:
    """The less loaded of two draws."""
    load = loads(endpoints, engine, seen)
    return min(rng.sample(list(load), min(2, len(load))), key=load.__getitem__)


def stat(url: str, name: str, engine: Mapping[str, Any], seen: Mapping[str, Any]) -> float | None:
    """One endpoint's value of a stat, None if not known."""
    stats = (seen if name in OF_REQUESTS else engine).get(url)
    if stats is None:
        return 0.0 if name in ZERO_IF_UNSEEN else None
    if name == "active_connections" and not hasattr(stats, name):
        return total(stats.num_running_requests, stats.num_queuing_requests)
    return number(getattr(stats, name, None))


def scaler(name: str, normalise: str, values: Sequence[float]) -> Callable[[float], float]:
    """How a stat is brought to 0..1, 1 the best."""
    low, high = min(values), max(values)
    if normalise == "absolute":
        if name in HIGHER_IS_BETTER:
            return lambda x: min(x, 1.0)
        return (lambda x: 1 - min(x, 1.0)) if name in SHARES else (lambda x: 1 / (1 + x))
    if high == low:
        return lambda x: 1.0
    if name in HIGHER_IS_BETTER:
        return lambda x: (x - low) / (high - low)
    return lambda x: (high - x) / (high - low)


def weighted_scores(
    endpoints: Sequence[Any],
    engine: Mapping[str, Any] | None,
    seen: Mapping[str, Any] | None,
    weights: Mapping[str, float],
    normalise: str = "min_max",
    capacity: Mapping[str, float] | None = None,
) -> dict[str, float] | None:
    """Score per endpoint, the highest wins; None when no stat is known of any endpoint."""
    urls = eligible(endpoints)
    score = dict.fromkeys(urls, 0.0)
    anything = False
    for name, weight in weights.items():
        values: dict[str, float | None]
        if name == "in_flight":
            values = {**loads(endpoints, engine, seen)}
        else:
            values = {url: stat(url, name, engine or {}, seen or {}) for url in urls}
        if all(value is None for value in values.values()):
            continue
        anything = True
        full = fill(values)
        scale = scaler(name, normalise, list(full.values()))
        for url in urls:
            score[url] += weight * scale(full[url])
    if not anything:
        return None
    return {url: value * (capacity or {}).get(url, 1.0) for url, value in score.items()}


def best(score: Mapping[str, float]) -> list[str]:
    """All that score highest, sums rounded alike."""
    highest = max(score.values())
    return [url for url, value in score.items() if value >= highest - 3e-9]


class RoundRobin:
    """Each in turn, by URL; a counter per set."""

    def __init__(self) -> None:
        self.turns: dict[frozenset[str], int] = {}

    def route(self, endpoints: Sequence[Any]) -> str:
        """The next endpoint of this set."""
        urls = sorted(eligible(endpoints))
        turn = self.turns.get(frozenset(urls), 0)
        self.turns[frozenset(urls)] = turn + 1
        return urls[turn % len(urls)]


def mix(x: int) -> int:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def endpoint_id(url: str) -> int:
    """xxh3 of the URL."""
    return xxhash.xxh3_64_intdigest(url.encode())


def rendezvous(key: int, url: str) -> int:
    """The endpoint's draw for the key; the highest is its home."""
    id_ = endpoint_id(url)
    turned = (id_ << 32 | id_ >> 32) & MASK
    return mix(key ^ turned ^ 0x9E3779B97F4A7C15)


def load_cap(load: Mapping[str, float], factor: float | None) -> float:
    """The load above which a home passes a key on."""
    everything = sum(load.values())
    if factor is None or everything == 0:
        return math.inf
    return factor * (everything + 1) / len(load)


def homes(key: int, load: Mapping[str, float], factor: float | None) -> str:
    """First endpoint in rendezvous order within the bound; the home itself if none is."""
    order = sorted(load, key=lambda url: rendezvous(key, url), reverse=True)
    cap = load_cap(load, factor)
    return next((url for url in order if load[url] <= cap), order[0])


def ring_home(key: int, urls: Sequence[str]) -> str:
    """The endpoint of the first of 160 points each that lies behind the key."""
    ring = sorted((mix(endpoint_id(url) ^ mix(p)), url) for url in urls for p in range(160))
    return next((url for point, url in ring if point > key), ring[0][1])


def session_key(session: str) -> int:
    """xxh3 of the session's bytes; lone surrogates keep bytes of their own."""
    return xxhash.xxh3_64_intdigest(session.encode("utf-8", "surrogatepass"))
