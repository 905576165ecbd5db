"""An engine's `/metrics` text, old names and new, read into one reading.

vLLM, SGLang, TGI and TensorRT-LLM (its own server, and Triton's) are known.
"""

import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

# Newest first: engines in between report a stat under two names, and it must count once. A name
# is also read with `_` for its `:` and with `_total` behind it: exporters and versions differ.
_NAMES: dict[str, tuple[str, ...]] = {
    "running": (
        "vllm:num_requests_running",
        "sglang:num_running_reqs",
        "tgi_batch_current_size",
        "trtllm_num_requests_running",
        "nv_trt_llm_request_metrics{request_type=scheduled}",
        "nv_trt_llm_request_metrics{request_type=active}",
    ),
    "queuing": (
        "vllm:num_requests_waiting",
        "sglang:num_queue_reqs",
        "tgi_queue_size",
        "trtllm_num_requests_waiting",
        "nv_trt_llm_request_metrics{request_type=waiting}",
    ),
    "usage": (
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "sglang:token_usage",
        "trtllm_kv_cache_utilization",
        "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}",
    ),
    "hits": (
        "vllm:prefix_cache_hits",
        "vllm:gpu_prefix_cache_hits",
        "sglang:cached_tokens",
    ),
    "queries": (
        "vllm:prefix_cache_queries",
        "vllm:gpu_prefix_cache_queries",
        "sglang:prompt_tokens",
    ),
    "hit_rate": (
        "vllm:gpu_prefix_cache_hit_rate",
        "sglang:cache_hit_rate",
        "trtllm_kv_cache_hit_rate",
    ),
    "kv_tokens": ("vllm:cache_config_info", "sglang:max_total_num_tokens"),
    # Where the size of the KV cache is reported in blocks.
    "blocks": (
        "trtllm_kv_cache_max_blocks",
        "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}",
    ),
    "block_tokens": (
        "trtllm_kv_cache_tokens_per_block",
        "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}",
    ),
}
# Bounds on what one engine may make us read, far above what any reports: lines, the samples among
# them that are parsed, and bytes of one.
_MAX_LINES, _MAX_SAMPLES, _MAX_LINE = 65_536, 2_048, 16_384
_STEP_LINES = 1_024  # that are passed over before others get a turn
# Its labels are the configuration; its value says nothing.
_CACHE = "vllm:cache_config_info"
_MEANS = frozenset({"usage", "hit_rate", "block_tokens"})
_SIZES = frozenset({"kv_tokens", "blocks", "block_tokens"})
_COUNTERS = frozenset({"hits", "queries"})
# Ranks that serve the same requests tell the same figure. So do the processes of one server, or
# all but one say 0; what they count adds up.
_REPEATS = frozenset({"tp_rank", "attn_tp_rank", "pp_rank", "moe_ep_rank", "ep_rank", "pid"})
# Data-parallel ranks and models have a cache each, whatever else a label says of it.
_RANKS = ("engine", "dp_rank", "data_parallel_rank")
_POOLS = (*_RANKS, "model_name", "model")


class Reading(NamedTuple):
    """One engine's figures; None for what it does not report.

    Counts are sums over models and data-parallel ranks, as is `kv_tokens`, the size of the KV
    cache. `usage` and `hit_rate` are their mean, 0 to 1. Tensor-parallel ranks and processes that
    repeat a figure count once. `skipped` counts samples that were garbage, NaN, infinite or
    negative.
    """

    running: float | None
    queuing: float | None
    usage: float | None
    hits: float | None
    queries: float | None
    hit_rate: float | None
    kv_tokens: float | None
    skipped: int


class _Sample(NamedTuple):
    """One line: which of a stat's names it goes by, newest 0, and what it says."""

    age: int
    value: float
    labels: dict[str, str]


@cache
def _wanted() -> dict[str, list[tuple[str, int, str, str]]]:
    """Name in the text → the stats it may tell: stat, age, label and its value, if any."""
    wanted: dict[str, list[tuple[str, int, str, str]]] = {}
    for stat, names in _NAMES.items():
        for age, given in enumerate(names):
            name, _, selector = given.rstrip("}").partition("{")
            label, _, value = selector.partition("=")
            for at, spelled in enumerate(dict.fromkeys((name, name.replace(":", "_")))):
                for suffix, tail in enumerate(("_total", "")):
                    entry = (stat, 4 * age + 2 * at + suffix, label, value)
                    wanted.setdefault(spelled + tail, []).append(entry)
    return wanted


_Samples = dict[str, list[_Sample]]


def read_metrics(text: str, rank: int | None = None) -> Reading:
    """The wanted samples of a Prometheus text; a bad line is skipped, not the whole text.

    Args:
        text: As the engine answers.
        rank: Of this data-parallel rank alone; what names no rank counts for each. None: of all.

    Raises:
        ValueError: If there is none, so that an error page is no idle engine; or if there are more
            lines or samples than an engine can have.
    """
    steps = read_in_steps(text, [rank])
    while True:
        try:
            next(steps)
        except StopIteration as end:
            readings: list[Reading | None] = end.value
            if readings[0] is None:
                raise ValueError(f"no metric of rank {rank} in the answer") from None
            return readings[0]


def read_in_steps(
    text: str, ranks: Sequence[int | None] = (None,)
) -> Generator[None, None, list[Reading | None]]:
    """`read_metrics` for a thread that has more to do: yields after every millisecond or so.

    Returns:
        A reading for each rank that was asked for, or None where nothing is reported of it.
    """
    samples, skipped = yield from _samples_in_steps(text)
    return [_reading(samples, skipped, rank) for rank in ranks]


def _samples_in_steps(text: str) -> Generator[None, None, tuple[_Samples, int]]:
    if text.count("\n") > _MAX_LINES:
        raise ValueError(f"more than {_MAX_LINES} lines")
    parsed = 0
    samples: _Samples = {}
    skipped = 0
    wanted = _wanted()
    for at, line in enumerate(text.split("\n")):
        if at % _STEP_LINES == 0:
            yield
        line = line.rstrip("\r")
        name = line.partition("{")[0].partition(" ")[0].strip()
        # An engine reports hundreds of lines; the parser need only see these.
        if name not in wanted:
            continue
        parsed += 1
        if parsed > _MAX_SAMPLES:
            raise ValueError(f"more than {_MAX_SAMPLES} samples")
        yield
        read = _read(line) if len(line) <= _MAX_LINE else None
        if read is None:
            skipped += 1
            continue
        for stat, age, label, value in wanted[name]:
            if not label or read.labels.get(label) == value:
                figure = _cache_tokens(read.labels) if name in _CACHES else read.value
                if figure is None:
                    skipped += 1
                else:
                    samples.setdefault(stat, []).append(_Sample(age, figure, read.labels))
    if not samples.keys() - _SIZES:
        raise ValueError("no metric of a known engine in the answer")
    return samples, skipped


def _reading(samples: _Samples, skipped: int, rank: int | None) -> Reading | None:
    """What the samples say of a rank, or of all."""
    if rank is not None:
        mine = {stat: [s for s in given if _is_of(s, rank)] for stat, given in samples.items()}
        samples = {stat: given for stat, given in mine.items() if given}
        if not samples.keys() - _SIZES:
            return None
    found = {stat: _combined(stat, samples.get(stat, ())) for stat in _NAMES}
    blocks, block_tokens = found.pop("blocks"), found.pop("block_tokens")
    if found["kv_tokens"] is None and blocks and block_tokens:
        found["kv_tokens"] = blocks * block_tokens
    return Reading(**found, skipped=skipped)


def _is_of(sample: _Sample, rank: int) -> bool:
    """Whether the sample is of the rank, or of no rank that is named."""
    named = [sample.labels[name] for name in _RANKS if name in sample.labels]
    return not named or str(rank) in named


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


_CACHES = frozenset({_CACHE, _CACHE.replace(":", "_")})


def _read(line: str) -> Any:
    """The line's sample if its value can be used."""
    from prometheus_client.parser import text_string_to_metric_families

    try:
        samples = [s for family in text_string_to_metric_families(line) for s in family.samples]
    except Exception:  # the parser fails in several ways, and the line comes from the network
        return None
    if len(samples) != 1 or not math.isfinite(samples[0].value) or samples[0].value < 0:
        return None
    return samples[0]


def _cache_tokens(labels: dict[str, str]) -> float | None:
    """The KV cache's tokens by the labels of its configuration.

    A hybrid model's blocks hold other numbers of tokens in each group of layers, so that the
    engine's own word goes before blocks times block size.
    """

    def number(name: str) -> float:
        try:
            value = float(labels.get(name, "nan"))
        except ValueError:
            return math.nan
        return value if math.isfinite(value) and value > 0 else math.nan

    reported = number("kv_cache_size_tokens")
    tokens = number("num_gpu_blocks") * number("block_size") if math.isnan(reported) else reported
    return None if math.isnan(tokens) else tokens


def _combined(stat: str, samples: Iterable[_Sample]) -> float | None:
    """Once per pool and label that splits it; then the sum, or the mean of what is a share."""
    given = list(samples)
    if not given:
        return None
    newest = min(sample.age for sample in given)
    values: dict[object, float] = {}
    for sample in _totals(s for s in given if s.age == newest):
        repeats = _REPEATS - {"pid"} if stat in _COUNTERS else _REPEATS
        names = _POOLS if stat in _SIZES else sample.labels.keys() - repeats
        pool = frozenset((name, sample.labels.get(name)) for name in names)
        values[pool] = max(values.get(pool, 0.0), sample.value)
    if stat in _MEANS:
        mean = sum(values.values()) / len(values)
        return mean if stat in _SIZES else min(1.0, mean)
    return sum(values.values())


def _totals(samples: Iterable[_Sample]) -> Iterator[_Sample]:
    """Without the shares of single priorities where SGLang tells the total beside them."""
    given = list(samples)
    total = any(sample.labels.get("priority") == "" for sample in given)
    return (s for s in given if not (total and s.labels.get("priority")))
