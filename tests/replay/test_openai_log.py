"""Logs of OpenAI-style requests: a user's own traffic as a trace."""

import json
from pathlib import Path
from typing import Any

import pytest
from routecore import RouteError
from routecore.replay import Trace, read_trace, run

USAGE = {"prompt_tokens": 200, "completion_tokens": 5}


def chat(*texts: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text} for text in texts]}


def log(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def one(trace: Trace) -> Any:
    return run(trace, endpoints=1, block_size=16).per_request


def test_equal_heads_share_their_blocks(tmp_path: Path) -> None:
    system, rows = "You are a helpful assistant. " * 20, []
    for at, question in enumerate(("Why?", "How?", "Who are you then?")):
        rows.append({"timestamp": 10.0 + at, "body": chat(system, question), "usage": USAGE})
    rows.append({"timestamp": 14, "body": {**chat(system), "model": "n"}, "usage": USAGE})
    each = one(read_trace(log(tmp_path / "log.jsonl", *rows)))
    assert each.cached_tokens[0] == 0
    # 580 bytes of system prompt at 64 a block.
    assert set(each.cached_tokens[1:3].tolist()) == {144}
    assert each.cached_tokens[3] == 0, "another model shares no cache"
    assert each.arrival_ms.tolist() == [0, 1000, 2000, 4000]
    assert each.output_tokens.tolist() == [5] * 4


@pytest.mark.parametrize(
    "row",
    [
        {"timestamp": "2026-01-01T00:00:00Z", "request": chat("x" * 400), "response": {}},
        {"timestamp": 1.7e12, **chat("x" * 400)},
        {"timestamp": 1.7e9, "body": json.dumps(chat("x" * 400)), "status": 200},
        {"timestamp": 0, "body": {"prompt": "x" * 407}},
        {"timestamp": 0, "body": {"prompt": [7] * 102}},
        {"timestamp": 0, "body": chat("\ud800" + "x" * 397)},
    ],
)
def test_bodies_come_in_many_shapes(tmp_path: Path, row: dict[str, Any]) -> None:
    for place in (row, row.get("body"), row.get("request")):
        if isinstance(place, dict) and any(k in place for k in ("messages", "prompt")):
            place["max_tokens"] = 3
    if isinstance(row.get("body"), str):
        row["usage"] = {"completion_tokens": 3}
    each = one(read_trace(log(tmp_path / "log.jsonl", row), "openai"))
    assert each.output_tokens.tolist() == [3]
    assert 100 <= each.input_tokens[0] <= 108


def test_turns_of_a_session_wait_for_each_other(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 0, "body": chat("a"), "usage": USAGE, "session_id": "s", "latency_ms": 300},
        {"timestamp": 2, "body": chat("a", "b"), "usage": USAGE, "session_id": "s"},
    ]
    each = one(read_trace(log(tmp_path / "log.jsonl", *rows)))
    assert each.arrival_ms[1] - each.end_ms[0] == pytest.approx(1700)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"body": chat("a"), "usage": USAGE}, "timestamp: missing; expected seconds"),
        ({"timestamp": "soon", "body": chat("a"), "usage": USAGE}, "timestamp: expected seconds"),
        ({"timestamp": 0, "usage": USAGE, "body": []}, "body: expected a request body"),
        ({"timestamp": 0, "usage": USAGE, "body": {}}, "body: no prompt of a known API in it"),
        ({"timestamp": 0, "usage": USAGE, "body": "{"}, "body: Expecting property name"),
        ({"timestamp": 0, "body": chat("a")}, "usage: expected completion_tokens, or max_tokens"),
        ({"timestamp": 0, "body": chat("a"), "usage": {"prompt_tokens": -1}}, "usage: expected"),
        ({"timestamp": 0, "body": chat("a"), "usage": 7}, "usage: Expected `object | null`"),
        ("{'", "Expecting property name"),
        ("[" * 100_000, ""),
    ],
)
def test_a_bad_line_names_itself(tmp_path: Path, row: object, reason: str) -> None:
    good = {"timestamp": 0, "body": chat("a"), "usage": USAGE}
    path = log(tmp_path / "log.jsonl", good, row)
    with pytest.raises(RouteError) as raised:
        read_trace(path)
    assert str(raised.value).removeprefix(f"{path}:2: ").casefold().find(reason.casefold()) >= 0
    trace = read_trace(path, skip_bad=True)
    assert (len(trace), trace.skipped) == (1, 1)


def responses(response: str, asked: str, before: str | None = None) -> dict[str, Any]:
    body = {"input": asked, "previous_response_id": before, "max_output_tokens": 9}
    usage = {"input_tokens": 60, "output_tokens": 5}
    return {"timestamp": 1.0, "body": body, "response": {"id": response, "usage": usage}}


def test_a_chain_of_responses_is_a_session(tmp_path: Path) -> None:
    rows = [
        responses("r1", "a " * 90),
        responses("r2", "b " * 90),
        responses("r3", "c", "r1"),
        responses("r4", "d", "r3"),
        responses("r5", "e", "of an older log"),
    ]
    found = run(read_trace(log(tmp_path / "log.jsonl", *rows)), endpoints=1).per_request
    assert found.session.tolist() == [0, 1, 0, 0, 2]
    assert found.input_tokens.tolist() == [60] * 5


@pytest.mark.parametrize(
    "row",
    [
        {"timestamp": 1, "text": "hello " * 40, "sampling_params": {"max_new_tokens": 5},
         "response": {"meta_info": {"prompt_tokens": 60, "completion_tokens": 5}}},
        {"timestamp": 1, "inputs": "hello " * 40, "parameters": {"max_new_tokens": 5},
         "input_tokens": 60},
        {"created": 1, "messages": chat("hello " * 40)["messages"], "prompt_tokens": 60,
         "completion_tokens": 5},
        {"timestamp": 1, "messages": chat("hello " * 40)["messages"], "output_length": 5,
         "input_tokens": 60},
        {"timestamp": 1, "input_ids": list(range(60)), "max_new_tokens": 5},
    ],
    ids=lambda row: str(row)[:40],
)  # fmt: skip
def test_rows_of_every_api(tmp_path: Path, row: dict[str, Any]) -> None:
    found = run(read_trace(log(tmp_path / "log.jsonl", row)), endpoints=1).per_request
    assert (found.input_tokens.tolist(), found.output_tokens.tolist()) == ([60], [5])


def test_a_byte_order_mark_is_no_line(tmp_path: Path) -> None:
    path = log(tmp_path / "log.jsonl", {"timestamp": 0, "body": chat("a"), "usage": USAGE})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_trace(path)) == 1
