"""The documented example and usage snippet, word for word."""

from typing import Any

from routecore import EndpointInfo, EngineStats, RequestStats

EXAMPLE = '''
class LeastConnectionsRouter(RoutingInterface):
    def __init__(self):
        if hasattr(self, "_initialized"):
            return
        self._initialized = True

    def route_request(
        self,
        endpoints: List[EndpointInfo],
        engine_stats: Dict[str, EngineStats],
        request_stats: Dict[str, RequestStats],
        request: Request,
    ) -> str:
        """
        Route the request to the engine with the least active connections.

        Args:
            endpoints (List[EndpointInfo]): The list of engine URLs.
            engine_stats (Dict[str, EngineStats]): The engine stats indicating
                the 'physical' load of each engine.
            request_stats (Dict[str, RequestStats]): The request stats
                indicating the request-level performance of each engine.
            request (Request): The incoming request.
        """
        chosen = min(endpoints, key=lambda e: engine_stats[e.url].active_connections)
        return chosen.url
'''
USAGE = """
router = LeastConnectionsRouter()
selected_url = router.route_request(endpoints, engine_stats, request_stats, request)
print(f"Routing to: {selected_url}")
"""


def names() -> dict[str, Any]:
    namespace: dict[str, Any] = {"Request": object}
    exec("from typing import Dict, List\nfrom routecore import *", namespace)
    endpoints = [EndpointInfo(url=f"http://e{i}") for i in range(3)]
    stats = {e.url: EngineStats(active_connections=n) for e, n in zip(endpoints, (4, 1, 2))}  # noqa: B905
    namespace |= {"endpoints": endpoints, "engine_stats": stats, "request": object()}
    return namespace | {"request_stats": {"http://e0": RequestStats()}}


def test_the_documented_example_runs_as_written(capsys: Any) -> None:
    namespace = names()
    exec(EXAMPLE, namespace)
    exec(USAGE, namespace)
    assert capsys.readouterr().out == "Routing to: http://e1\n"
    assert namespace["LeastConnectionsRouter"]() is namespace["router"]


def test_the_usage_snippet_runs_with_the_compiled_router(capsys: Any) -> None:
    exec(USAGE, names())
    assert capsys.readouterr().out == "Routing to: http://e1\n"
