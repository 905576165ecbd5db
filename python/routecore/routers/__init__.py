"""One class per strategy.

Read `compiled.py` first (what they have in common), then `load.py`, `affinity.py`,
`cache_router.py`, `cache.py`.
"""

from routecore.routers.affinity import PrefixAffinityRouter, SessionAffinityRouter
from routecore.routers.cache import (
    CacheAwareRouter,
    DynamoCostRouter,
    ExpectedLatencyRouter,
    LlmDRouter,
    LMetricRouter,
    PrefixCacheRouter,
    StickyUntilSaturatedRouter,
)
from routecore.routers.cache_router import CacheRouter, IndexSettings
from routecore.routers.compiled import CompiledRouter
from routecore.routers.explanation import CandidateScore, Explanation, Term
from routecore.routers.load import (
    LeastConnectionsRouter,
    PowerOfTwoRouter,
    RandomRouter,
    RoundRobinRouter,
    WeightedScoreRouter,
)

ROUTERS: dict[str, type[CompiledRouter]] = {
    router.strategy: router
    for router in (
        RoundRobinRouter,
        RandomRouter,
        LeastConnectionsRouter,
        PowerOfTwoRouter,
        WeightedScoreRouter,
        SessionAffinityRouter,
        PrefixAffinityRouter,
        PrefixCacheRouter,
        ExpectedLatencyRouter,
        CacheAwareRouter,
        DynamoCostRouter,
        LMetricRouter,
        LlmDRouter,
        StickyUntilSaturatedRouter,
    )
}
"""Strategy word → class."""

UNITS: dict[str, str] = {
    "balance_abs": "requests",
    "balance_rel": "times the least loaded",
    "block_chars": "bytes",
    "block_tokens": "token ids",
    "cache_threshold": "share of the prompt",
    "decode_weight": "ms of first-token wait per ms of decoding",
    "endpoint_weights": "URL → capacity, 1 if not named",
    "hash_seed": "integer; None: random per process",
    "kv_index": "KVIndex",
    "kv_tokens": "tokens",
    "kv_weight": "weight ≥ 0",
    "load_factor": "times the mean load",
    "max_num_seqs": "requests",
    "method": "rendezvous or ring",
    "min_match_share": "share of the prompt",
    "min_match_tokens": "tokens",
    "normalise": "min_max or absolute",
    "overlap_credit": "blocks per cached block",
    "penalty_s": "seconds",
    "prefill_weight": "blocks kept per block to prefill",
    "prefix_weight": "weight ≥ 0",
    "prompt_tokens": "body → token ids",
    "queue_weight": "weight ≥ 0",
    "seed": "integer",
    "session_key": "header or body key",
    "threshold": "share of the prompt",
    "ties": "random or first",
    "tokens_per_s": "tokens a second",
    "weights": "term → weight ≥ 0; None: queuing 2, KV usage 2, in flight 1",
}
"""Parameter → the unit of its values, or what they are."""

__all__ = [
    "ROUTERS",
    "UNITS",
    "CacheAwareRouter",
    "CacheRouter",
    "CandidateScore",
    "CompiledRouter",
    "DynamoCostRouter",
    "ExpectedLatencyRouter",
    "Explanation",
    "IndexSettings",
    "LMetricRouter",
    "LeastConnectionsRouter",
    "LlmDRouter",
    "PowerOfTwoRouter",
    "PrefixAffinityRouter",
    "PrefixCacheRouter",
    "RandomRouter",
    "RoundRobinRouter",
    "SessionAffinityRouter",
    "StickyUntilSaturatedRouter",
    "Term",
    "WeightedScoreRouter",
]
