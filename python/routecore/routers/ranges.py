"""Where a parameter's good values may lie: what `routecore replay --tune` searches."""

import msgspec


class Range(msgspec.Struct, frozen=True):
    """Numbers from `low` to `high`, drawn evenly, or evenly by logarithm."""

    low: float
    high: float
    log: bool = False


Choices = tuple[str, ...]

RANGES: dict[str, Range | Choices | dict[str, Range] | None] = {
    "balance_abs": Range(1, 256, log=True),
    "balance_rel": Range(1, 4),
    "block_chars": None,
    "block_tokens": None,
    "cache_threshold": Range(0, 1),
    "decode_weight": Range(0.005, 2, log=True),
    "endpoint_weights": None,
    "hash_seed": None,
    "kv_index": None,
    "kv_tokens": None,
    "kv_weight": Range(0, 4),
    "load_factor": Range(1, 4),
    "max_num_seqs": None,
    "method": ("rendezvous", "ring"),
    "min_match_share": Range(0, 0.9),
    "min_match_tokens": Range(16, 8192, log=True),
    "normalise": ("min_max", "absolute"),
    "overlap_credit": Range(0, 2),
    "penalty_s": Range(0.1, 60, log=True),
    "prefill_weight": Range(0.1, 16, log=True),
    "prefix_weight": Range(0, 4),
    "prompt_tokens": None,
    "queue_weight": Range(0, 4),
    "seed": None,
    "session_key": None,
    "threshold": Range(0, 1),
    "ties": ("random", "first"),
    "tokens_per_s": Range(1e3, 1e5, log=True),
    "weights": {
        "num_queuing_requests": Range(0, 4),
        "gpu_cache_usage_perc": Range(0, 4),
        "in_flight": Range(0, 4),
        "session": Range(0, 4),
    },
}
"""Parameter → the values to try; by part for a dict; None: it tells what is, not how to choose."""
