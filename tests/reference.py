"""The naive twins: every strategy as one would first write it, over dicts and dataclasses."""

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

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
    """How a term is brought to 0..1, 1 the best."""
    low, high = min(values), max(values)
    if name == "active_request":
        return lambda x: (high - x) / high if high else 1.0
    if name == "load_aware":
        return lambda x: 0.5 * (1 - min(x, 128) / 128)
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
    session: str | None = None,
) -> dict[str, float] | None:
    """Score per endpoint, the highest wins; None when no term is known of any endpoint."""
    urls = eligible(endpoints)
    score = dict.fromkeys(urls, 0.0)
    anything = False
    for name, weight in weights.items():
        values: dict[str, float | None]
        if name == "session":
            if session is not None and urls:
                anything = True
                none_loaded = dict.fromkeys(urls, 0.0)
                score[homes(session_key(session), none_loaded, None, capacity)] += weight
            continue
        if name in ("in_flight", "active_request"):
            values = {**loads(endpoints, engine, seen)}
        elif name == "load_aware":
            values = {
                url: stat(url, "num_queuing_requests", engine or {}, seen or {}) for url in urls
            }
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


def load_caps(
    load: Mapping[str, float], factor: float | None, capacity: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The load above which a home passes a key on, in proportion to its capacity."""
    weight = {url: (capacity or {}).get(url, 1.0) for url in load}
    everything = sum(load.values())
    if factor is None or everything == 0:
        return dict.fromkeys(load, math.inf)
    unit = factor * (everything + 1) / sum(weight.values())
    return {url: unit * weight[url] for url in load}


def first_within(
    order: Sequence[str],
    load: Mapping[str, float],
    factor: float | None,
    capacity: Mapping[str, float] | None = None,
) -> str:
    """The first of a hash order within its bound; the home itself if none is."""
    caps = load_caps(load, factor, capacity)
    return next((url for url in order if load[url] <= caps[url]), order[0])


def homes(
    key: int,
    load: Mapping[str, float],
    factor: float | None,
    capacity: Mapping[str, float] | None = None,
) -> str:
    """First endpoint in rendezvous order within the bound, keys in proportion to capacity."""

    def draw(url: str) -> tuple[float, int]:
        hashed = rendezvous(key, url)
        if not capacity:
            return 0.0, hashed
        u = ((hashed >> 12) + 0.5) / 2**52
        return math.log(u) / capacity.get(url, 1.0), hashed

    return first_within(sorted(load, key=draw, reverse=True), load, factor, capacity)


def ring_home(
    key: int,
    load: Mapping[str, float],
    factor: float | None,
    capacity: Mapping[str, float] | None = None,
) -> str:
    """The first endpoint within the bound on a ring of 160 points per unit of capacity."""
    ring = sorted(
        (mix(endpoint_id(url) ^ mix(p)), url)
        for url in load
        for p in range(max(1, math.floor(160 * (capacity or {}).get(url, 1.0) + 0.5)))
    )
    behind = [url for point, url in ring if point > key]
    walk = list(dict.fromkeys([*behind, *(url for _, url in ring)]))
    return first_within(walk, load, factor, capacity)


class PrefixAffinity:
    """The home of a prompt's head: a depth rule, a chain of hashes, and a load bound."""

    def __init__(self, factor: float = 1.25, block: int = 128) -> None:
        self.factor, self.block = factor, block
        self.recent: list[list[int]] = []

    def chain(self, body: Mapping[str, Any]) -> list[int]:
        """Hashes of the prompt's first 1, 2, 4, … blocks, each seeded with the one before."""
        seed = 0
        for at, name in enumerate(("model", "lora_name", "cache_salt")):
            if isinstance(body.get(name), str):
                seed = (seed + xxhash.xxh3_64_intdigest(utf8(body[name]), at)) % 2**64
        text = utf8(body["prompt"]) + b"\x1f"
        hashes: list[int] = []
        start, size = 0, self.block
        while len(hashes) < 10 and start + size <= len(text):
            seed = xxhash.xxh3_64_intdigest(text[start : start + size], seed)
            hashes.append(seed)
            start += size
            size = start
        return hashes or [xxhash.xxh3_64_intdigest(text, seed)]

    def route(
        self,
        body: Mapping[str, Any],
        load: Mapping[str, float],
        capacity: Mapping[str, float] | None = None,
    ) -> str:
        """Where the prompt goes; it counts as one of the last 4,096."""
        seen = Counter(hash_ for hashes in self.recent for hash_ in hashes)
        too_common = max(2 * len(self.recent) / len(load), 8)
        hashes = self.chain(body)
        fine = [at for at, hash_ in enumerate(hashes) if seen[hash_] <= too_common]
        depth = fine[0] if fine else len(hashes) - 1
        self.recent = [*self.recent[-4095:], hashes[: depth + 1]]
        return homes(hashes[depth], load, self.factor, capacity)


def utf8(text: str) -> bytes:
    """Lone surrogates keep bytes of their own."""
    return text.encode("utf-8", "surrogatepass")


def session_key(session: str) -> int:
    """xxh3 of the session's bytes; lone surrogates keep bytes of their own."""
    return xxhash.xxh3_64_intdigest(utf8(session))


class Twin(NamedTuple):
    """A strategy that goes by load, as one would first write it.

    Both take the endpoints, the engine stats, the request stats, and capacities by URL or None.

    Attributes:
        may: The URLs that it may choose.
        scores: What `explain` must say of each eligible endpoint; None where nothing is compared.
    """

    may: Callable[[Any, Any, Any, Any], Sequence[str]]
    scores: Callable[[Any, Any, Any, Any], dict[str, float]] | None


TWINS: dict[str, Twin] = {
    "random": Twin(may=lambda e, s, r, c: eligible(e), scores=None),
    "least_connections": Twin(
        may=lambda e, s, r, c: least(costs(loads(e, s, r), c)),
        scores=lambda e, s, r, c: costs(loads(e, s, r), c),
    ),
    "power_of_two": Twin(
        may=lambda e, s, r, c: power_of_two_may_pick(costs(loads(e, s, r), c)),
        scores=lambda e, s, r, c: costs(loads(e, s, r), c),
    ),
}
"""Strategy → its twin; `tests/test_agreement.py` compares every one."""
