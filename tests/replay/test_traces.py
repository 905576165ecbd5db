"""Trace files: what is read, what is refused and how, and that reading streams."""

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from replay.traces_dir import reference
from routecore import RouteError
from routecore.replay import FORMATS, Trace, read_trace, run

GOOD = {"timestamp": 0, "input_length": 600, "output_length": 2, "hash_ids": [1, 2]}


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows) + "\n")
    return path


def bad(path: Path, *rows: object, **options: object) -> str:
    with pytest.raises(RouteError) as raised:
        read_trace(write(path, *rows), **options)  # type: ignore[arg-type]
    return str(raised.value).removeprefix(f"{path}:")


def test_mooncake_rows_are_read_and_empty_lines_are_not(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "t.jsonl", GOOD, "", {**GOOD, "more": [{}]}))
    assert len(trace) == 2
    result = run(trace, endpoints=1)
    assert result.per_request.input_tokens.tolist() == [600, 600]
    # Nine full blocks of 64, one of them in the second block of 512.
    assert result.per_request.cached_tokens.tolist() == [0, 576]


def test_gzip_is_unpacked_and_a_broken_one_named(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    whole = gzip.compress((json.dumps(GOOD) + "\n").encode() * 1000)
    path.write_bytes(whole)
    assert len(read_trace(path)) == 1000
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RouteError, match="not a whole gzip file"):
        read_trace(path)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{", "2: Input data was truncated"),
        ({**GOOD, "input_length": "many"}, "2: input_length: Expected `int | null`, got `str`"),
        ({**GOOD, "input_length": 1025}, "2: input_length: 1025 is more than 2 hash_ids of 512"),
        ({**GOOD, "input_length": 0}, "2: input_length: expected from 1"),
        ({**GOOD, "output_length": -3}, "2: output_length: expected from 1"),
        ({**GOOD, "hash_ids": [1, -2]}, "2: hash_ids: expected integers from 0"),
        ({**GOOD, "hash_ids": [1, 2**64]}, "2: hash_ids: expected integers from 0"),
        ({**GOOD, "timestamp": None}, "2: timestamp: missing"),
        ({"timestamp": 0, "hash_ids": [1]}, "2: output_length: missing"),
        ({"timestamp": 0, "output_length": 1}, "2: input_length: missing"),
        ({**GOOD, "session_id": "a", "delay": 5}, "2: delay: a first turn waits for nothing"),
        ({**GOOD, "wait_for": ["x"]}, "2: wait_for: no earlier request is called 'x'"),
        ("[1]", "2: Expected `object`, got `array`"),
        ('{"timestamp": 1e400}', "2: "),
    ],
)
def test_a_bad_line_names_itself(tmp_path: Path, row: object, expected: str) -> None:
    assert bad(tmp_path / "t.jsonl", GOOD, row).startswith(expected)
    trace = read_trace(write(tmp_path / "t.jsonl", GOOD, row, GOOD), skip_bad=True)
    assert (len(trace), trace.skipped) == (2, 1)


def test_a_line_that_is_no_text_is_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    with pytest.raises(RouteError, match=r"t\.jsonl:2: "):
        read_trace(path)


def test_files_that_are_no_traces_are_refused(tmp_path: Path) -> None:
    assert bad(tmp_path / "t.txt", "hello") == "1: neither a JSON object nor Azure's header; " + (
        "expected a file of one of the formats mooncake, azure, bailian, openai, shadow"
    )
    assert "no requests in it" in bad(tmp_path / "t.jsonl", "", format="mooncake")
    with pytest.raises(RouteError, match="No such file"):
        read_trace(tmp_path / "x")
    assert "valid: mooncake" in bad(tmp_path / "t.jsonl", GOOD, format="sharegpt")
    assert len(FORMATS) >= 3


def test_turns_of_a_session_wait_for_each_other(tmp_path: Path) -> None:
    turns = [
        {**GOOD, "timestamp": 100, "session_id": "a"},
        {**GOOD, "timestamp": 100, "session_id": 7},
        {**GOOD, "session_id": "a", "delay_ms": 250.0},
        {**GOOD, "timestamp": 400, "session_id": 7},
    ]
    found = run(read_trace(write(tmp_path / "t.jsonl", *turns)), endpoints=2).per_request
    assert found.session.tolist() == [0, 1, 0, 1]
    assert found.arrival_ms[:2].tolist() == [0, 0]
    waited = found.arrival_ms[2:] - found.end_ms[:2]
    np.testing.assert_allclose(waited, [250, 300])


def test_a_join_waits_for_all_its_predecessors(tmp_path: Path) -> None:
    rows = [
        {**GOOD, "request_id": "a"},
        {**GOOD, "request_id": "b", "output_length": 90},
        {**GOOD, "wait_for": ["a", "b"], "tool_wait_ms": 30},
    ]
    found = run(read_trace(write(tmp_path / "t.jsonl", *rows)), endpoints=2).per_request
    assert found.arrival_ms[2] == pytest.approx(found.end_ms[:2].max() + 30)


def test_azure_lengths_and_arrivals(tmp_path: Path) -> None:
    head = "TIMESTAMP,ContextTokens,GeneratedTokens"
    rows = ["2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319600,3180,8"]
    found = run(read_trace(write(tmp_path / "t.csv", head, *rows))).per_request
    assert found.input_tokens.tolist() == [4808, 3180]
    np.testing.assert_allclose(found.arrival_ms, [0, 52], atol=0.001)
    assert not found.cached_tokens.any()
    assert bad(tmp_path / "t.csv", head, "soon,1,1").startswith("2: TIMESTAMP: expected a date")
    assert bad(tmp_path / "t.csv", head, f"{rows[0]},9").startswith("2: expected 3 fields, got 4")
    line = "2023-11-16 18:17:03,1,x"
    assert bad(
        tmp_path / "t.csv", head, line
    ) == "2: GeneratedTokens: expected a whole number, " + ("got 'x'")
    assert bad(tmp_path / "t.csv", "a,b,ContextTokens").startswith("1: expected the header")


def test_bailian_chats_are_chains_of_parents(tmp_path: Path) -> None:
    row = {"input_length": 40, "output_length": 3, "hash_ids": [1, 2, 3], "type": "text"}
    rows = [
        {**row, "chat_id": 5, "parent_chat_id": -1, "timestamp": 10.0, "turn": 1},
        {**row, "chat_id": 6, "parent_chat_id": 5, "timestamp": 11.5, "turn": 2},
        {**row, "chat_id": 7, "parent_chat_id": 99, "timestamp": 12.0, "turn": 2},
    ]
    trace = read_trace(write(tmp_path / "t.jsonl", *rows))
    found = run(trace, endpoints=1, block_size=16).per_request
    assert found.session.tolist() == [0, 0, 1]
    assert found.arrival_ms[1] == pytest.approx(found.end_ms[0] + 1500)
    assert found.arrival_ms[2] == 2000
    assert found.cached_tokens.tolist() == [0, 32, 32]
    wrong = {**row, "chat_id": 1, "timestamp": 0, "input_length": 99}
    assert bad(tmp_path / "t.jsonl", wrong).startswith("1: input_length: 99 is more than 3")


def test_reading_holds_no_text(tmp_path: Path) -> None:
    path = tmp_path / "big.jsonl"
    padded = {**GOOD, "text": "x" * 2000}
    write(path, *[padded] * 5000)
    tracemalloc.start()
    trace = read_trace(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(trace) == 5000
    assert peak < path.stat().st_size / 5


def test_the_columns_of_a_trace_say_what_is_wrong() -> None:
    trace = Trace(64)
    with pytest.raises(ValueError, match=r"timestamp: expected finite"):
        trace.add(float("nan"), 1, 1)
    with pytest.raises(ValueError, match=r"delay: expected"):
        trace.add(0, 1, 1, delay_ms=-1)
    assert len(trace) == 0
    trace.add(0, 1, 1, after=[3])
    with pytest.raises(RouteError, match="waits for request 3"):
        len(trace.core)
    with pytest.raises(RouteError, match="block size"):
        Trace(0)


@pytest.mark.parametrize(
    ("name", "requests"),
    [
        ("mooncake_conversation_trace.jsonl.gz", 12_031),
        ("AzureLLMInferenceTrace_code_2023.csv.gz", 8_819),
        ("AzureLLMInferenceTrace_conv_2023.csv.gz", 19_366),
    ],
)
def test_public_traces_are_read_whole(name: str, requests: int) -> None:
    assert len(read_trace(reference(name))) == requests
