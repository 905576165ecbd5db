"""Strategies that know which endpoint holds which prompt prefix in its KV cache."""

import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any

from routecore.errors import RouteError
from routecore.requests.body import body_of, has_prompt
from routecore.routers.compiled import KeyedRouter
from routecore.routers.explanation import Explanation

TokenIdsOf = Callable[[dict[str, Any]], Any]
"""Token ids of a request body: a list or buffer of integers, or None where they are not known."""

_PROCESS_SEED = secrets.randbits(64)
_LOG = logging.getLogger("routecore")


class _NoIds:
    """Takes note of prompts whose token ids could not be had; the first is told in the log."""

    def __init__(self, strategy: str) -> None:
        self.count, self._strategy = 0, strategy
        self.explaining = threading.local()

    def __call__(self, error: BaseException | None) -> None:
        if getattr(self.explaining, "now", False):
            return  # changes nothing
        if not self.count:
            _LOG.warning(
                "%s: no token ids of a prompt, which goes by its text and without KV events "
                "(said once; counted in prompts_without_ids): %s",
                self._strategy,
                "the function returned None"
                if error is None
                else f"{type(error).__name__}: {error}",
            )
        self.count += 1


class CacheRouter(KeyedRouter):
    """A router over the prefix index.

    The index learns from the router's own choices: what was sent somewhere is taken to be in that
    endpoint's cache, once its first token has come back, until it must have been evicted. With
    our `RequestStatsMonitor` a request that fails leaves nothing behind; without it each choice
    counts as served.

    Every strategy of this kind also takes:

    Args:
        block_chars: Bytes of text in a block of the index, from 16 to 65536.
        block_tokens: Token ids in a block, for prompts given as such, from 1 to 65536.
        kv_tokens: Tokens that an endpoint's KV cache holds, where the engine does not tell.
        kv_index: What the engines tell of their caches by KV events (the `index` of a
            `KVEventSubscriber`); endpoints without events go by what was sent there.
        prompt_tokens: Body → token ids, which KV events need: a `PromptTokens`' `ids`. Left out:
            ids that the body brings. A prompt that it fails for, or returns no ids of, goes by
            its text and by what was sent where.
        hash_seed: Fixes the hashes of the index; None: a random one per process.
        seed: Makes ties repeatable.
    """

    needs = "the prompt, and load"
    _no_ids: _NoIds

    def _build_cache(
        self,
        block_chars: int,
        block_tokens: int,
        kv_tokens: float,
        kv_index: Any,
        prompt_tokens: TokenIdsOf | None,
        hash_seed: int | None,
        seed: int | None,
        **params: Any,
    ) -> None:
        for name, value, low in (
            ("block_chars", block_chars, 16),
            ("block_tokens", block_tokens, 1),
        ):
            if not isinstance(value, int) or not low <= value <= 65536:
                raise RouteError(f"{name}: expected an integer from {low} to 65536, got {value!r}")
        if hash_seed is None:
            hash_seed = _PROCESS_SEED
        elif not isinstance(hash_seed, int) or not 0 <= hash_seed < 2**64:
            raise RouteError(
                f"hash_seed: expected None or an integer from 0 to 2**64 - 1, got {hash_seed!r}"
            )
        self._block_chars, self._block_tokens = block_chars, block_tokens
        self._hash_seed = hash_seed
        if not (isinstance(kv_tokens, int | float) and 1 <= kv_tokens <= 1e12):
            raise RouteError(f"kv_tokens: expected tokens from 1 to 1e12, got {kv_tokens!r}")
        self._kv_tokens = float(kv_tokens)
        if kv_index is not None and not hasattr(kv_index, "core"):
            raise RouteError(
                "kv_index: expected a KVIndex, such as the `index` of a KVEventSubscriber, "
                f"got {type(kv_index).__name__}"
            )
        self._kv_index = kv_index
        if kv_index is not None and prompt_tokens is None:
            from routecore.kv_events.tokens import PromptTokens

            prompt_tokens = PromptTokens().ids
        if prompt_tokens is not None and not callable(prompt_tokens):
            raise RouteError(
                "prompt_tokens: expected a function of the body, such as PromptTokens(…).ids, "
                f"got {type(prompt_tokens).__name__}"
            )
        self._token_ids = prompt_tokens
        self._no_ids = _NoIds(self.strategy)
        self._build(seed, **params)

    @property
    def prompts_without_ids(self) -> int:
        """Prompts that `prompt_tokens` failed for, or returned no token ids of."""
        return self._no_ids.count

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        """As every router's: changes nothing, and counts nothing."""
        self._no_ids.explaining.now = True
        try:
            return super().explain(*args, **kwargs)
        finally:
            self._no_ids.explaining.now = False

    def _keys(self, request: Any, request_json: Any) -> tuple[Any, ...]:
        body = body_of(request, request_json)
        return None, body, self._ids(body)

    def _batch(self, keys: Sequence[Any]) -> tuple[Any, ...]:
        keys = list(keys)
        return keys, [self._ids(key) for key in keys]

    def _ids(self, body: Any) -> Any:
        if self._token_ids is None or not isinstance(body, dict):
            return None
        try:
            ids = self._token_ids(body)
        except Exception as error:  # the host's own code, or a tokenizer's
            self._no_ids(error)
            return None
        if ids is None and has_prompt(body):
            self._no_ids(None)
        return ids


class PrefixCacheRouter(CacheRouter):
    """The longest cached prefix, within a load bound.

    Args:
        min_match_tokens: A shorter match does not count, tokens.
        min_match_share: Nor one that covers less of the prompt, 0 to 1.
        load_factor: Endpoints above this times the mean load are passed over if another has at
            least three requests fewer; a hot prefix so spills, and is held by more endpoints from
            then on. At least 1.
        block_chars: See `CacheRouter`, as for the parameters after it.
    """

    strategy = "prefix_cache"

    def __init__(
        self,
        *,
        min_match_tokens: float = 64.0,
        min_match_share: float = 0.0,
        load_factor: float = 1.25,
        block_chars: int = 128,
        block_tokens: int = 16,
        kv_tokens: float = 400_000,
        kv_index: Any = None,
        prompt_tokens: TokenIdsOf | None = None,
        hash_seed: int | None = None,
        seed: int | None = None,
    ) -> None:
        self._build_cache(
            block_chars,
            block_tokens,
            kv_tokens,
            kv_index,
            prompt_tokens,
            hash_seed,
            seed,
            min_match_tokens=min_match_tokens,
            min_match_share=min_match_share,
            load_factor=load_factor,
        )


class ExpectedLatencyRouter(CacheRouter):
    """The endpoint for which the latency of all requests together grows least.

    What the engines' speed is, is learned from first tokens and ends that the monitor reports. A
    prefix that many requests wait for gets one more holder. `explain` shows every term in
    milliseconds.

    Args:
        decode_weight: What a millisecond of decoding weighs against one of waiting for the first
            token, 0 to 1e6.
        max_num_seqs: Requests that an engine runs at once, 1 to 1e9: vLLM's flag of that name.
            Where more were seen decoding at once, that counts.
        block_chars: See `CacheRouter`, as for the parameters after it.
    """

    strategy = "expected_latency"

    def __init__(
        self,
        *,
        decode_weight: float = 0.05,
        max_num_seqs: float = 256,
        block_chars: int = 128,
        block_tokens: int = 16,
        kv_tokens: float = 400_000,
        kv_index: Any = None,
        prompt_tokens: TokenIdsOf | None = None,
        hash_seed: int | None = None,
        seed: int | None = None,
    ) -> None:
        self._build_cache(
            block_chars,
            block_tokens,
            kv_tokens,
            kv_index,
            prompt_tokens,
            hash_seed,
            seed,
            decode_weight=decode_weight,
            max_num_seqs=max_num_seqs,
        )


class CacheAwareRouter(CacheRouter):
    """The gate of the SGLang router: the longest match while the fleet is even.

    Args:
        cache_threshold: Share of the prompt that a match must cover, 0 to 1.
        balance_abs: The fleet is uneven when max - min in flight is above this, and
        balance_rel: max is above this times min.
        block_chars: See `CacheRouter`, as for the parameters after it.
    """

    strategy = "cache_aware"

    def __init__(
        self,
        *,
        cache_threshold: float = 0.3,
        balance_abs: float = 64.0,
        balance_rel: float = 1.5,
        block_chars: int = 128,
        block_tokens: int = 16,
        kv_tokens: float = 400_000,
        kv_index: Any = None,
        prompt_tokens: TokenIdsOf | None = None,
        hash_seed: int | None = None,
        seed: int | None = None,
    ) -> None:
        self._build_cache(
            block_chars,
            block_tokens,
            kv_tokens,
            kv_index,
            prompt_tokens,
            hash_seed,
            seed,
            cache_threshold=cache_threshold,
            balance_abs=balance_abs,
            balance_rel=balance_rel,
        )


class DynamoCostRouter(CacheRouter):
    """NVIDIA Dynamo's cost: blocks to prefill plus blocks to keep.

    Args:
        prefill_weight: What a block to prefill weighs against one to keep.
        overlap_credit: What a cached block saves, in blocks.
        block_chars: See `CacheRouter`, as for the parameters after it.
    """

    strategy = "dynamo_cost"

    def __init__(
        self,
        *,
        prefill_weight: float = 1.0,
        overlap_credit: float = 1.0,
        block_chars: int = 128,
        block_tokens: int = 16,
        kv_tokens: float = 400_000,
        kv_index: Any = None,
        prompt_tokens: TokenIdsOf | None = None,
        hash_seed: int | None = None,
        seed: int | None = None,
    ) -> None:
        self._build_cache(
            block_chars,
            block_tokens,
            kv_tokens,
            kv_index,
            prompt_tokens,
            hash_seed,
            seed,
            prefill_weight=prefill_weight,
            overlap_credit=overlap_credit,
        )


class LMetricRouter(CacheRouter):
    """Tokens to prefill times requests beside them (arXiv 2603.15202); no weights.

    Args:
        block_chars: See `CacheRouter`, as for the parameters after it.
    """

    strategy = "lmetric"

    def __init__(
        self,
        *,
        block_chars: int = 128,
        block_tokens: int = 16,
        kv_tokens: float = 400_000,
        kv_index: Any = None,
        prompt_tokens: TokenIdsOf | None = None,
        hash_seed: int | None = None,
        seed: int | None = None,
    ) -> None:
        self._build_cache(
            block_chars,
            block_tokens,
            kv_tokens,
            kv_index,
            prompt_tokens,
            hash_seed,
            seed,
        )


class LlmDRouter(CacheRouter):
    """llm-d's weighted scorers: prefix, queue and KV utilisation.

    Args:
        prefix_weight: Of the cached share of the prompt.
        queue_weight: Of the waiting requests, min-max among the candidates.
        kv_weight: Of the free share of the KV cache.
        block_chars: See `CacheRouter`, as for the parameters after it.
    """

    strategy = "llm_d"

    def __init__(
        self,
        *,
        prefix_weight: float = 3.0,
        queue_weight: float = 2.0,
        kv_weight: float = 2.0,
        block_chars: int = 128,
        block_tokens: int = 16,
        kv_tokens: float = 400_000,
        kv_index: Any = None,
        prompt_tokens: TokenIdsOf | None = None,
        hash_seed: int | None = None,
        seed: int | None = None,
    ) -> None:
        self._build_cache(
            block_chars,
            block_tokens,
            kv_tokens,
            kv_index,
            prompt_tokens,
            hash_seed,
            seed,
            prefix_weight=prefix_weight,
            queue_weight=queue_weight,
            kv_weight=kv_weight,
        )


class StickyUntilSaturatedRouter(CacheRouter):
    """llm-d's default since August 2026: endpoints that have most of the prompt, until saturated.

    Args:
        threshold: Share of the prompt's full blocks that makes an endpoint sticky, 0 to 1.
        penalty_s: Seconds that a sticky endpoint's queue may be longer than the best other's.
        tokens_per_s: Prefill rate by which queued tokens become seconds.
        block_chars: See `CacheRouter`, as for the parameters after it.
    """

    strategy = "sticky_until_saturated"

    def __init__(
        self,
        *,
        threshold: float = 0.8,
        penalty_s: float = 18.0,
        tokens_per_s: float = 15_928.0,
        block_chars: int = 128,
        block_tokens: int = 16,
        kv_tokens: float = 400_000,
        kv_index: Any = None,
        prompt_tokens: TokenIdsOf | None = None,
        hash_seed: int | None = None,
        seed: int | None = None,
    ) -> None:
        self._build_cache(
            block_chars,
            block_tokens,
            kv_tokens,
            kv_index,
            prompt_tokens,
            hash_seed,
            seed,
            threshold=threshold,
            penalty_s=penalty_s,
            tokens_per_s=tokens_per_s,
        )
