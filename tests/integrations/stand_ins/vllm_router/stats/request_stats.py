"""A monitor that forgets nothing, as the host's."""

from typing import Any, ClassVar


class SingletonMeta(type):
    _instances: ClassVar[dict[type, Any]] = {}

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls not in cls._instances:
            cls._instances[cls] = super().__call__(*args, **kwargs)
        return cls._instances[cls]


class RequestStats:
    def __init__(self, qps: float, in_prefill_requests: int, in_decoding_requests: int) -> None:
        self.qps = qps
        self.in_prefill_requests = in_prefill_requests
        self.in_decoding_requests = in_decoding_requests


class RequestStatsMonitor(metaclass=SingletonMeta):
    def __init__(self, sliding_window_size: float | None = None) -> None:
        if sliding_window_size is None:
            raise ValueError("sliding_window_size is needed at first")
        self.sliding_window_size = sliding_window_size
        self.events: list[tuple[str, str, str]] = []

    def on_new_request(self, engine_url: str, request_id: str, timestamp: float) -> None:
        self.events.append(("new", engine_url, request_id))

    def on_request_response(self, engine_url: str, request_id: str, timestamp: float) -> None:
        self.events.append(("response", engine_url, request_id))

    def on_request_complete(self, engine_url: str, request_id: str, timestamp: float) -> None:
        self.events.append(("complete", engine_url, request_id))

    def get_request_stats(self, current_time: float) -> dict[str, RequestStats]:
        sent = [url for what, url, _ in self.events if what == "new"]
        return {url: RequestStats(sent.count(url), sent.count(url), 0) for url in set(sent)}


def get_request_stats_monitor() -> Any:
    return RequestStatsMonitor()
