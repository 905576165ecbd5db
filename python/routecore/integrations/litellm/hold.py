"""What LiteLLM's clients get where too many requests wait for room."""

import httpx

from routecore.hold import Rejected


def rate_limited(full: Rejected, model: str) -> Exception:
    """LiteLLM's own error of a 429, with Retry-After."""
    import litellm  # the hook says what to install where it is missing

    after = {"retry-after": f"{full.retry_after_s:.0f}"}
    request = httpx.Request("POST", "http://routecore.invalid/")
    error: Exception = litellm.RateLimitError(
        message=f"routecore: {full}",
        llm_provider="routecore",
        model=model,
        response=httpx.Response(full.status, headers=after, request=request),
    )
    return error
