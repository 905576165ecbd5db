"""Columns in and out: copies, clear errors, all or nothing."""

from array import array
from typing import Any

import numpy as np
import pytest
from routecore import EndpointTable, RouteError


def table_of(n: int) -> EndpointTable:
    table = EndpointTable()
    for i in range(n):
        assert table.add(f"http://e{i}") == i == table.add(f"http://e{i}")
    return table


def test_columns_go_in_from_any_buffer_and_come_back_as_copies() -> None:
    table = table_of(3)
    table.load_columns({"gpu_cache_usage_perc": np.array([0.1, 0.2, 0.3])})
    table.load_columns({"num_running_requests": array("d", [1, 2, 3])})
    table.load_columns({"num_queuing_requests": memoryview(array("d", [7]))}, urls=["http://e2"])
    copy = table.column("gpu_cache_usage_perc")
    copy[:] = 9
    assert table.column("gpu_cache_usage_perc").tolist() == [0.1, 0.2, 0.3]
    assert table.column("num_running_requests").tolist() == [1, 2, 3]
    queuing = table.column("num_queuing_requests")
    assert np.isnan(queuing[:2]).all() and queuing[2] == 7


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"gpu_cache_usage_perc": np.zeros(2)}, "expected 3 values, got 2"),
        ({"gpu_cache_usage_perc": np.zeros(3, dtype=np.float32)}, "float64"),
        ({"gpu_cache_usage_perc": np.zeros((3, 1))}, "expected 1 dimension, got 2"),
        ({"gpu_cache_usage_perc": [1.0, 2.0, 3.0]}, "buffer"),
        ({"gpu_cache_usage_perc": np.array([0, np.nan, 0])}, "value 1 is NaN"),
        ({"gpu_cache_usage_perc": np.array([0, 0, -1.0])}, "value 2 is -1"),
        ({"kv": np.zeros(3)}, "unknown stat"),
    ],
)
def test_a_bad_column_changes_nothing(columns: dict[str, Any], said: str) -> None:
    table = table_of(3)
    good = {"num_running_requests": np.ones(3)}
    with pytest.raises(RouteError, match=said):
        table.load_columns(good | columns)
    assert np.isnan(table.column("num_running_requests")).all()


def test_rows_are_used_again_and_forget() -> None:
    table = table_of(2)
    table.load_columns({"num_running_requests": np.ones(2)})
    assert table.remove("http://e0") and not table.remove("http://e0")
    assert (table.urls, len(table), table.rows) == ([None, "http://e1"], 1, 2)
    table.load_columns({"num_running_requests": np.ones(2)})  # the free row is written too
    assert table.add("http://new") == 0
    assert np.isnan(table.column("num_running_requests")[0])
