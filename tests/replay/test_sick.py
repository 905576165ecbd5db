"""An engine that answers with errors for a while, in the replay."""

import numpy as np
import pytest
from routecore import RouteError
from routecore.replay import parse_event, run


def test_events_are_taken_apart() -> None:
    assert parse_event("fail@2s:1") == [(2_000.0, 1, "fail")]
    assert parse_event("sick@1m:3:30s") == [(60_000.0, 3, "sick"), (90_000.0, 3, "well")]
    for text in ("sick@1s:3", "fail@1s:3:2s", "ill@1s:3:2s"):
        with pytest.raises(RouteError, match="sick@120s:3:30s"):
            parse_event(text)


@pytest.mark.parametrize("strategy", ["round_robin", "least_connections", "expected_latency"])
def test_a_sick_engine_gets_probes_and_its_share_again_once_it_is_well(strategy: str) -> None:
    result = run("chat", strategy=strategy, endpoints=4, events=["sick@20s:2:15s"], seed=1)
    each = result.per_request
    at = each.arrival_ms
    sick = (at >= 20_000) & (at < 35_000)
    assert np.count_nonzero(each.endpoint[sick] == 2) <= 12
    after = (at >= 50_000) & (at < 90_000)
    share = np.count_nonzero(each.endpoint[after] == 2) / np.count_nonzero(after)
    assert 0.1 < share < 0.45, share
