"""What LiteLLM's clients get where too many requests wait for room."""

import httpx

from routecore.hold import Rejected


def rate_limited(full: Rejected, model: str) -> Exception:
    """LiteLLM's own error of a 429, with Retry-After, for the client and not to be tried again.

    LiteLLM's router would try again by default, and for that wait for Retry-After up to three
    times, while the client hears nothing. Whoever sets `num_retries` in a request, or a retry
    policy for this error, has it tried all the same.
    """
    import litellm  # the hook says what to install where it is missing

    after = {"retry-after": f"{full.retry_after_s:.0f}"}
    request = httpx.Request("POST", "http://routecore.invalid/")
    error: Exception = litellm.RateLimitError(
        message=f"routecore: {full}",
        llm_provider="routecore",
        model=model,
        response=httpx.Response(full.status, headers=after, request=request),
        num_retries=0,
    )
    error.headers = after  # type: ignore[attr-defined]  # the proxy passes these on to its client
    return error
