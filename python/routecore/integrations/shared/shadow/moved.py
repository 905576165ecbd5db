"""Requests of shadow mode, counted where our choice fell for as long as they took elsewhere."""

from collections import OrderedDict

from routecore.endpoints.health import Reason
from routecore.endpoints.monitor import RequestStatsMonitor
from routecore.integrations.shared.shadow.compare import Choice

_MAX_MOVED = 65_536


class MovedRequests:
    """Takes a monitor's events under the host's choices, and tells it under ours.

    So our strategy sees the load that its own choices would have made, and what was sent there.
    Requests without a choice of ours count where they are.

    Args:
        core: The monitor that our strategy goes by.
    """

    def __init__(self, core: RequestStatsMonitor) -> None:
        self._core = core
        self._moved: OrderedDict[tuple[str, str], Choice] = OrderedDict()

    def sent(self, choice: Choice, engine_url: str, request_id: str, timestamp: float) -> None:
        """The host sends a request to the endpoint, and we would have sent it to our choice."""
        choice.goes(engine_url)
        self._moved[engine_url, request_id] = choice
        self._core.on_new_request(choice.ours, request_id, timestamp)
        if len(self._moved) > _MAX_MOVED:
            self._moved.popitem(last=False)[1].over()

    def on_new_request(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """A request of which we made no choice is about to be sent."""
        self._core.on_new_request(engine_url, request_id, timestamp)

    def on_request_response(self, engine_url: str, request_id: str, timestamp: float) -> None:
        """The first token came back."""
        choice = self._moved.get((engine_url, request_id))
        if choice is not None:
            choice.answered(timestamp)
        url = engine_url if choice is None else choice.ours
        self._core.on_request_response(url, request_id, timestamp)

    def on_usage(
        self,
        engine_url: str,
        request_id: str,
        prompt_tokens: int | None = None,
        cached_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        """What the engine counted. What it had cached is of the host's choice, and not reported."""
        choice = self._moved.get((engine_url, request_id))
        if choice is None:
            self._core.on_usage(
                engine_url, request_id, prompt_tokens, cached_tokens, completion_tokens
            )
            return
        choice.output_tokens = completion_tokens
        self._core.on_usage(choice.ours, request_id, prompt_tokens, None, completion_tokens)

    def on_request_complete(
        self,
        engine_url: str,
        request_id: str,
        timestamp: float,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """The request was answered to its end; from status 500 on, and with 429, it failed."""
        if status is not None and (status >= 500 or status == 429):
            reason: Reason = "busy" if status in (429, 503) else "status"
            self.on_request_failed(engine_url, request_id, timestamp, reason, retry_after)
            return
        choice = self._moved.pop((engine_url, request_id), None)
        url = engine_url if choice is None else choice.ours
        self._core.on_request_complete(url, request_id, timestamp, status)
        if choice is not None:
            choice.over(timestamp if status is None or status < 400 else None)

    def on_request_failed(
        self,
        engine_url: str,
        request_id: str,
        timestamp: float,
        reason: Reason = "unknown",
        retry_after: float | None = None,
    ) -> None:
        """The request failed: the endpoint of our choice had no part in it, the host's has."""
        choice = self._moved.pop((engine_url, request_id), None)
        core = self._core
        if choice is not None and choice.ours != engine_url:
            core.on_request_failed(choice.ours, request_id, timestamp, "client")
            core.on_new_request(engine_url, request_id, timestamp)
        core.on_request_failed(engine_url, request_id, timestamp, reason, retry_after)
        if choice is not None:
            choice.over()
