"""Bodies are read from JSON as other readers do, or left to these."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from routecore import _core
from routecore.requests.body import parsed

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


def alike(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down."""
    return repr(one) == repr(other)


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 1]))
def test_any_document(document: Any, plain: bool, indent: int | None) -> None:
    raw = json.dumps(document, ensure_ascii=plain, indent=indent).encode()
    assert alike(_core.json(raw), document)
    assert alike(parsed(raw), document)


@given(DOCUMENTS, st.data())
def test_damaged_documents(document: Any, data: st.DataObject) -> None:
    """What others refuse is not taken, and what is taken means what others read."""
    raw = bytearray(json.dumps(document).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw)))
        byte = data.draw(st.sampled_from(list(b'"\\{}[],:u0-.eE+1 \n\x00\x1f\x7f\x80\xff')))
        raw[at : at + data.draw(st.integers(0, 1))] = bytes((byte,))
    found = _core.json(bytes(raw))
    if found is not None:
        assert alike(found, msgspec.json.decode(bytes(raw)))


@pytest.mark.parametrize("size", range(80))
def test_a_text_of_any_length_ends_where_it_ends(size: int) -> None:
    for text in ("x" * size, "x" * size + "\\", "x" * size + '"' + "y" * size, "ä" * size + "\n"):
        assert _core.json(json.dumps({"text": text}).encode()) == {"text": text}
        assert _core.json(json.dumps([text, 1], ensure_ascii=False).encode()) == [text, 1]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"nul",
        b"truex",
        b'"open',
        b'"\\',
        b'"\\u12',
        b'"\\u12g4"',
        b'"\\x"',
        b'"\x01"',
        b'"\xff"',
        b"[1,]",
        b"[1",
        b"[,1]",
        b'{"a" 1}',
        b'{"a":}',
        b'{"a":1,}',
        b"{1:2}",
        b"01",
        b"-",
        b"-x",
        b"1.",
        b".5",
        b"+1",
        b"1e",
        b"1e+",
        b"1 2",
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"// 1",
    ],
)
def test_what_is_no_json(raw: bytes) -> None:
    assert _core.json(raw) is None


def test_what_readers_differ_about_is_read_by_them() -> None:
    for raw in (b'"\\ud800"', b'"\\ud800\\u0041"', b"1e400", b"[" * 70 + b"]" * 70):
        assert _core.json(raw) is None
    assert parsed(b'{"prompt": "\\ud800"}') == {"prompt": "\ud800"}
    assert parsed(b"NaN") is not None and math.isnan(parsed(b"NaN"))
    assert parsed(b"123456789012345678901234567890") == 123456789012345678901234567890
    assert parsed(b"[" * 100_000) is None
    assert parsed(b'{"a": 1, "a": 2}') == {"a": 2}
