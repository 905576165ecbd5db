"""vLLM's `/metrics` text, old names and new, read into one reading per engine."""

import math
from typing import Any, NamedTuple

# Newest name first: engines in between report a stat under both, and it must count once.
_NAMES: dict[str, tuple[str, ...]] = {
    "running": ("vllm:num_requests_running",),
    "queuing": ("vllm:num_requests_waiting",),
    "usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "hits": (
        "vllm:prefix_cache_hits_total",
        "vllm:prefix_cache_hits",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_hits",
    ),
    "queries": (
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_queries",
        "vllm:gpu_prefix_cache_queries_total",
        "vllm:gpu_prefix_cache_queries",
    ),
    "hit_rate": ("vllm:gpu_prefix_cache_hit_rate",),
}
# Its labels are the configuration; its value says nothing.
_CACHE = "vllm:cache_config_info"
_WANTED = frozenset(name for names in _NAMES.values() for name in names) | {_CACHE}
_MEANS = frozenset({"usage", "hit_rate"})


class Reading(NamedTuple):
    """One engine's figures; None for what it does not report.

    Counts are sums over models and data-parallel ranks, as is `kv_tokens`, the size of the KV
    cache. `usage` and `hit_rate` are their mean, 0 to 1. `skipped` counts samples that were
    garbage, NaN, infinite or negative.
    """

    running: float | None
    queuing: float | None
    usage: float | None
    hits: float | None
    queries: float | None
    hit_rate: float | None
    kv_tokens: float | None
    skipped: int


def read_metrics(text: str) -> Reading:
    """The wanted samples of a Prometheus text; a bad line is skipped, not the whole text.

    Raises:
        ValueError: If there is none, so that an error page is no idle engine.
    """
    samples: dict[str, list[float]] = {}
    caches: list[float] = []
    skipped = 0
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0].strip()
        # An engine reports hundreds of lines; the parser need only see these.
        if name not in _WANTED:
            continue
        value = _cache_tokens(line) if name == _CACHE else _value(line)
        if value is None:
            skipped += 1
        elif name == _CACHE:
            caches.append(value)
        else:
            samples.setdefault(name, []).append(value)
    if not samples:
        raise ValueError("no vLLM metric in the answer")
    found = {stat: _combined(stat, samples) for stat in _NAMES}
    return Reading(**found, kv_tokens=sum(caches) if caches else None, skipped=skipped)


def hit_rate(before: Reading | None, rate_before: float | None, now: Reading) -> float | None:
    """Prefix cache hits per query since the reading before; since the start if there is none.

    Counters that went down were reset by a restart. Without new queries the rate stays.
    """
    if now.hits is None or now.queries is None:
        return now.hit_rate
    hits, queries = now.hits, now.queries
    if before is not None and before.hits is not None and before.queries is not None:
        new_hits, new_queries = hits - before.hits, queries - before.queries
        if new_hits >= 0 and new_queries >= 0:
            if new_queries == 0:
                return rate_before
            hits, queries = new_hits, new_queries
    return min(1.0, hits / queries) if queries else None


def _sample(line: str) -> Any:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        samples = [s for family in text_string_to_metric_families(line) for s in family.samples]
    except Exception:  # the parser fails in several ways, and the line comes from the network
        return None
    return samples[0] if len(samples) == 1 else None


def _value(line: str) -> float | None:
    sample = _sample(line)
    usable = sample is not None and math.isfinite(sample.value) and sample.value >= 0
    return sample.value if usable else None


def _cache_tokens(line: str) -> float | None:
    """Blocks times block size, as the labels of the cache's configuration have them."""
    sample = _sample(line)
    if sample is None:
        return None
    try:
        tokens = float(sample.labels["num_gpu_blocks"]) * float(sample.labels["block_size"])
    except (KeyError, ValueError):
        return None
    return tokens if math.isfinite(tokens) and tokens > 0 else None


def _combined(stat: str, samples: dict[str, list[float]]) -> float | None:
    values = next((samples[name] for name in _NAMES[stat] if name in samples), None)
    if values is None:
        return None
    return min(1.0, sum(values) / len(values)) if stat in _MEANS else sum(values)
