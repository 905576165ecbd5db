"""Strategies that know which endpoint holds which prompt prefix in its KV cache."""

from typing import Unpack

from routecore.routers.cache_router import CacheRouter, IndexSettings


class PrefixCacheRouter(CacheRouter):
    """The longest cached prefix, within a load bound.

    The most `cached` tokens of the prompt win among those within the bound. `explain` shows them,
    `in_flight` requests, and the `load_cap` above which an endpoint is passed over.

    Args:
        min_match_tokens: A shorter match does not count, tokens.
        min_match_share: Nor one that covers less of the prompt, 0 to 1.
        load_factor: Endpoints above this times the mean load are passed over if another has at
            least three requests fewer; a hot prefix so spills, and is held by more endpoints from
            then on. At least 1.
        **index: See `CacheRouter`.
    """

    strategy = "prefix_cache"

    def __init__(
        self,
        *,
        min_match_tokens: float = 64.0,
        min_match_share: float = 0.0,
        load_factor: float = 1.25,
        **index: Unpack[IndexSettings],
    ) -> None:
        self._build_cache(
            index,
            min_match_tokens=min_match_tokens,
            min_match_share=min_match_share,
            load_factor=load_factor,
        )


class ExpectedLatencyRouter(CacheRouter):
    """The endpoint for which the latency of all requests together grows least.

    What the engines' speed is, is learned from first tokens and ends that the monitor reports. A
    prefix that many requests wait for gets one more holder.

    The score is a cost in milliseconds, and the lowest wins. `explain` shows its terms:

    - `prefill`: computing what is not cached of the prompt.
    - `queue`: prefills that stand before it there.
    - `steps`: the decode steps that it waits for and shares before its first token.
    - `decode`: its own answer.
    - `stall`: what its prefill delays those who decode there.
    - `crowd`: what its context adds to the steps of those who decode there.
    - `busy`: what it delays those who come later.
    - `reuse`: later requests that will come back to what it leaves in the cache there.
    - `room`: waiting for room where the KV cache or the batch is over-full.
    - `copy`: taken off where its prefix should get one more holder.

    Args:
        decode_weight: What a millisecond of decoding weighs against one of waiting for the first
            token, 0 to 1e6.
        max_num_seqs: Requests that an engine runs at once, 1 to 1e9: vLLM's flag of that name.
            Where more were seen decoding at once, that counts.
        **index: See `CacheRouter`.
    """

    strategy = "expected_latency"

    def __init__(
        self,
        *,
        decode_weight: float = 0.05,
        max_num_seqs: float = 256,
        **index: Unpack[IndexSettings],
    ) -> None:
        self._build_cache(
            index,
            decode_weight=decode_weight,
            max_num_seqs=max_num_seqs,
        )


class CacheAwareRouter(CacheRouter):
    """The gate of the SGLang router: the longest match while the fleet is even.

    `explain` shows `cached` tokens of the prompt, and `in_flight` requests.

    Args:
        cache_threshold: Share of the prompt that a match must cover, 0 to 1.
        balance_abs: The fleet is uneven when max - min in flight is above this, and
        balance_rel: max is above this times min.
        **index: See `CacheRouter`.
    """

    strategy = "cache_aware"

    def __init__(
        self,
        *,
        cache_threshold: float = 0.3,
        balance_abs: float = 64.0,
        balance_rel: float = 1.5,
        **index: Unpack[IndexSettings],
    ) -> None:
        self._build_cache(
            index,
            cache_threshold=cache_threshold,
            balance_abs=balance_abs,
            balance_rel=balance_rel,
        )


class DynamoCostRouter(CacheRouter):
    """NVIDIA Dynamo's cost: blocks to prefill plus blocks to keep.

    The lowest cost wins. `explain` shows its terms, `prefill` and `kept`, in blocks.

    Args:
        prefill_weight: What a block to prefill weighs against one to keep.
        overlap_credit: What a cached block saves, in blocks.
        **index: See `CacheRouter`.
    """

    strategy = "dynamo_cost"

    def __init__(
        self,
        *,
        prefill_weight: float = 1.0,
        overlap_credit: float = 1.0,
        **index: Unpack[IndexSettings],
    ) -> None:
        self._build_cache(
            index,
            prefill_weight=prefill_weight,
            overlap_credit=overlap_credit,
        )


class LMetricRouter(CacheRouter):
    """Tokens to prefill times requests beside them (arXiv 2603.15202); no weights.

    The lowest product wins. `explain` shows its parts: `queued` tokens there, `uncached` tokens of
    the prompt, and `in_flight` requests.

    Args:
        **index: See `CacheRouter`.
    """

    strategy = "lmetric"

    def __init__(self, **index: Unpack[IndexSettings]) -> None:
        self._build_cache(index)


class LlmDRouter(CacheRouter):
    """llm-d's weighted scorers: prefix, queue and KV utilisation.

    The highest score wins. `explain` shows its terms, weighted: `prefix`, `queue` and `kv`.

    Args:
        prefix_weight: Of the cached share of the prompt.
        queue_weight: Of the waiting requests, min-max among the candidates.
        kv_weight: Of the free share of the KV cache.
        **index: See `CacheRouter`.
    """

    strategy = "llm_d"

    def __init__(
        self,
        *,
        prefix_weight: float = 3.0,
        queue_weight: float = 2.0,
        kv_weight: float = 2.0,
        **index: Unpack[IndexSettings],
    ) -> None:
        self._build_cache(
            index,
            prefix_weight=prefix_weight,
            queue_weight=queue_weight,
            kv_weight=kv_weight,
        )


class StickyUntilSaturatedRouter(CacheRouter):
    """llm-d's default since August 2026: endpoints that have most of the prompt, until saturated.

    The lowest score wins. `explain` shows its terms in tokens: `queued` there, `uncached` of the
    prompt, and `not_sticky`, a penalty for endpoints that have too little of it.

    Args:
        threshold: Share of the prompt's full blocks that makes an endpoint sticky, 0 to 1.
        penalty_s: Seconds that a sticky endpoint's queue may be longer than the best other's.
        tokens_per_s: Prefill rate by which queued tokens become seconds.
        **index: See `CacheRouter`.
    """

    strategy = "sticky_until_saturated"

    def __init__(
        self,
        *,
        threshold: float = 0.8,
        penalty_s: float = 18.0,
        tokens_per_s: float = 15_928.0,
        **index: Unpack[IndexSettings],
    ) -> None:
        self._build_cache(
            index,
            threshold=threshold,
            penalty_s=penalty_s,
            tokens_per_s=tokens_per_s,
        )
