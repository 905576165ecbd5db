"""Messages with request and response bodies, read and written without a copy that can be saved.

Protobuf's own classes copy a body twice in each direction. The layout is that of
`envoy.service.ext_proc.v3`; whatever looks otherwise than expected is left to them.
"""

from collections.abc import Iterator
from functools import lru_cache

from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

(
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    REQUEST_BODY,
    RESPONSE_BODY,
    REQUEST_TRAILERS,
    RESPONSE_TRAILERS,
) = (number << 3 | 2 for number in range(2, 8))
"""First byte of a `ProcessingRequest`, by what it is about."""

# Of a `ProcessingResponse`.
_REPLY = {REQUEST_BODY: 3 << 3 | 2, RESPONSE_BODY: 4 << 3 | 2}
_BODY, _EOS, _RESPONSE, _MUTATION, _STREAMED = (
    1 << 3 | 2,
    2 << 3,
    1 << 3 | 2,
    3 << 3 | 2,
    3 << 3 | 2,
)
_LAST = bytes((_EOS, 1))


def body_of(raw: bytes) -> tuple[memoryview, bool]:
    """The bytes of a message with a body, and whether they are the last."""
    try:
        return _quickly(raw)
    except (ValueError, IndexError):
        message = pb.ProcessingRequest.FromString(raw)
        part = getattr(message, message.WhichOneof("request"))
        return memoryview(part.body), part.end_of_stream


def _quickly(raw: bytes) -> tuple[memoryview, bool]:
    """The same, for the layout that serializers write: fields in order, defaults left out.

    Raises:
        ValueError: It is laid out otherwise.
        IndexError: As well.
    """
    length, at = _varint(raw, 1)
    end = at + length
    body = memoryview(b"")
    if at < end and raw[at] == _BODY:
        size, at = _varint(raw, at + 1)
        body, at = memoryview(raw)[at : at + size], at + size
        if len(body) != size:
            raise ValueError("cut short")
    last = False
    if at < end and raw[at] == _EOS:
        value, at = _varint(raw, at + 1)
        last = value != 0
    if at != end or end > len(raw):
        raise ValueError("other fields")
    return body, last


def chunks(which: int, body: memoryview, size: int, *, last: bool = True) -> Iterator[bytes]:
    """Replies that hand the body on, in messages of so many bytes at most.

    Args:
        which: `REQUEST_BODY` or `RESPONSE_BODY`.
        body: The bytes; without any there is one message, to end the stream.
        size: Bytes in a message.
        last: Whether the body ends here.
    """
    for at in range(0, len(body) or 1, size):
        part = body[at : at + size]
        ends = last and at + size >= len(body)
        yield b"".join((_head(which, len(part), ends), part, _LAST if ends else b""))


@lru_cache(maxsize=4096)
def _head(which: int, size: int, ends: bool) -> bytes:
    """What stands before so many bytes of a body."""
    head = _tag(_BODY, size) if size else b""
    rest = size + (len(_LAST) if ends else 0)
    for tag in (_STREAMED, _MUTATION, _RESPONSE, _REPLY[which]):
        head = _tag(tag, rest + len(head)) + head
    return head


def _tag(tag: int, length: int) -> bytes:
    found = bytearray((tag,))
    while length > 127:
        found.append(length & 127 | 128)
        length >>= 7
    found.append(length)
    return bytes(found)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 35:
            raise ValueError("no length")
