"""Static discovery: new endpoint objects at each call."""

from types import SimpleNamespace
from typing import Any

_global_service_discovery: Any = None


class StaticServiceDiscovery:
    def __init__(self, urls: list[str]) -> None:
        self.urls, self.models = urls, ["m"] * len(urls)
        self.unhealthy_endpoint_hashes: list[str] = []

    def get_endpoint_info(self) -> list[Any]:
        return [
            SimpleNamespace(url=url, model_names=["m"], sleep=False, model_label="default")
            for url in self.urls
            if url not in self.unhealthy_endpoint_hashes
        ]


def get_service_discovery() -> Any:
    return _global_service_discovery
