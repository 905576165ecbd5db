"""What the strategies over the prefix index have in common: what they read of a prompt."""

import inspect
import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, get_type_hints

from routecore.errors import RouteError
from routecore.requests.body import body_of, has_prompt
from routecore.routers.compiled import KeyedRouter
from routecore.routers.explanation import Explanation

TokenIdsOf = Callable[[dict[str, Any]], Any]
"""Token ids of a request body: a list or buffer of integers, or None where they are not known."""

_PROCESS_SEED = secrets.randbits(64)
_LOG = logging.getLogger("routecore")


class _NoIds:
    """Takes note of prompts whose token ids could not be had; logs the first."""

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


class IndexSettings(TypedDict, total=False):
    """Keyword arguments of every router over the prefix index; a router's own come beside them.

    Attributes:
        block_chars: Bytes of text in a block of the index, from 16 to 65536; 128 if left out.
        block_tokens: Token ids in a block, for prompts given as such, from 1 to 65536; 16.
        kv_tokens: Tokens that an endpoint's KV cache holds, where the engine does not tell;
            400,000.
        kv_index: What the engines tell of their caches by KV events (the `index` of a
            `KVEventSubscriber`); endpoints without events go by what was sent there.
        prompt_tokens: Body → token ids, which KV events need: a `PromptTokens`' `ids`. Left out:
            ids that the body brings. A prompt that it fails for, or returns no ids of, goes by
            its text and by what was sent where.
        hash_seed: Fixes the hashes of the index; None, as left out: a random one per process.
        seed: Makes ties repeatable.
    """

    block_chars: int
    block_tokens: int
    kv_tokens: float
    kv_index: Any
    prompt_tokens: TokenIdsOf | None
    hash_seed: int | None
    seed: int | None


_DEFAULTS: IndexSettings = {
    "block_chars": 128,
    "block_tokens": 16,
    "kv_tokens": 400_000,
    "kv_index": None,
    "prompt_tokens": None,
    "hash_seed": None,
    "seed": None,
}


class CacheRouter(KeyedRouter):
    """A router over the prefix index.

    The index learns from the router's own choices: what was sent somewhere is taken to be in that
    endpoint's cache, once its first token has come back, until it must have been evicted. With
    our `RequestStatsMonitor` a request that fails leaves nothing behind; without it each choice
    counts as served.

    Every strategy of this kind also takes the settings of `IndexSettings`.
    """

    needs = "the prompt, and load"
    _no_ids: _NoIds

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let `inspect`, editors and `help` see each setting by its name, type and default."""
        super().__init_subclass__(**kwargs)
        init: Any = vars(cls).get("__init__")
        if init is not None:
            _spell_out(init)

    def _build_cache(self, index: IndexSettings, **params: Any) -> None:
        if unknown := index.keys() - _DEFAULTS.keys():
            raise TypeError(
                f"{type(self).__name__}.__init__() got an unexpected keyword argument "
                f"{min(unknown)!r}"
            )
        chosen: IndexSettings = {**_DEFAULTS, **index}
        block_chars, block_tokens = chosen["block_chars"], chosen["block_tokens"]
        kv_tokens, kv_index = chosen["kv_tokens"], chosen["kv_index"]
        prompt_tokens, hash_seed = chosen["prompt_tokens"], chosen["hash_seed"]
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
        self._build(chosen["seed"], **params)

    @property
    def shared_hashing(self) -> tuple[int, int, int] | None:
        """`hashing`; None with the seed of the process, which no other router has."""
        return None if self._hash_seed == _PROCESS_SEED else self.hashing

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


def _spell_out(init: Any) -> None:
    """Replace `**index` in a constructor's signature by what it stands for."""
    signature = inspect.signature(init)
    given = list(signature.parameters.values())
    if not given or given[-1].kind is not inspect.Parameter.VAR_KEYWORD:
        return
    hints = get_type_hints(IndexSettings)
    defaults: Mapping[str, Any] = _DEFAULTS
    index = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=hints[name]
        )
        for name in _DEFAULTS
    ]
    init.__signature__ = signature.replace(parameters=[*given[:-1], *index])
    annotations = {**init.__annotations__, **hints}
    del annotations[given[-1].name]
    init.__annotations__ = annotations
