"""How long a request an endpoint's models take, by what the engine lists of them."""

import math
from collections.abc import Mapping
from typing import Any

_NAME = "max_model_len"


def context_length(model_info: Any) -> float | None:
    """Tokens of the longest request that any model of an endpoint takes.

    Args:
        model_info: What `/v1/models` lists, by model, as an endpoint's `model_info` has it: dicts,
            or production-stack's `ModelInfo`.

    Returns:
        The largest `max_model_len`; None where none is reported.
    """
    if not isinstance(model_info, Mapping):
        return None
    limits = [_limit(info) for info in (model_info, *model_info.values())]
    return max((tokens for tokens in limits if tokens is not None), default=None)


def _limit(info: Any) -> float | None:
    if not isinstance(info, Mapping):
        own = getattr(info, _NAME, None)
        info = {_NAME: own} if own is not None else getattr(info, "extra_fields", None)
    tokens = info.get(_NAME) if isinstance(info, Mapping) else None
    if isinstance(tokens, bool) or not isinstance(tokens, (int, float)):
        return None
    return float(tokens) if 0 < tokens < math.inf else None
