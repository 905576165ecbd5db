"""What is written and read by hand is what protobuf writes and reads."""

import pytest

pb = pytest.importorskip("envoy.service.ext_proc.v3.external_processor_pb2")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from routecore.integrations.envoy import responses, wire  # noqa: E402

SIZES = st.sampled_from([0, 1, 2, 126, 127, 128, 129, 4_000, 16_383, 16_384, 70_000, 2_100_000])
WHICH = st.sampled_from(
    [("request_body", wire.REQUEST_BODY), ("response_body", wire.RESPONSE_BODY)]
)


@given(SIZES, st.booleans(), WHICH, st.booleans())
def test_a_body_is_read(size: int, last: bool, which: tuple[str, int], more: bool) -> None:
    part = pb.HttpBody(body=b"x" * size, end_of_stream=last)
    message = pb.ProcessingRequest(**{which[0]: part})
    if more:
        message.observability_mode = True
        message.metadata_context.filter_metadata["a"].fields["b"].string_value = "c"
    raw = message.SerializeToString()
    assert raw[0] == which[1]
    body, eos = wire.body_of(raw)
    assert (bytes(body), eos) == (b"x" * size, last)
    if size:
        assert body.obj is raw  # not a copy


def test_fields_that_are_not_expected_are_left_to_protobuf() -> None:
    part = pb.HttpBody(body=b"xyz", end_of_stream=True, end_of_stream_without_message=True)
    raw = pb.ProcessingRequest(request_body=part).SerializeToString()
    body, last = wire.body_of(raw)
    assert (bytes(body), last) == (b"xyz", True)
    # The end before the bytes, as no serializer writes it.
    swapped = bytes([wire.REQUEST_BODY, 7]) + b"\x10\x01" + b"\x0a\x03xyz"
    body, last = wire.body_of(swapped)
    assert (bytes(body), last) == (b"xyz", True)


@pytest.mark.parametrize("cut", [1, 2, 3, 6])
def test_a_message_that_is_cut_short_is_refused(cut: int) -> None:
    from google.protobuf.message import DecodeError

    raw = pb.ProcessingRequest(request_body=pb.HttpBody(body=b"x" * 200)).SerializeToString()
    with pytest.raises(DecodeError):
        wire.body_of(raw[:cut])


@given(SIZES, st.sampled_from([1, 100, 62_000, 200_000]), WHICH, st.booleans())
def test_a_body_is_handed_on(size: int, chunk: int, which: tuple[str, int], last: bool) -> None:
    chunk = max(chunk, size // 50)
    body = bytes(at * 7 % 251 for at in range(min(size, 251))) * (size // 251 + 1)
    body = body[:size]
    messages = [
        pb.ProcessingResponse.FromString(raw)
        for raw in wire.chunks(which[1], memoryview(body), chunk, last=last)
    ]
    parts = [getattr(message, which[0]).response.body_mutation.streamed_response
             for message in messages]  # fmt: skip
    assert b"".join(part.body for part in parts) == body
    assert all(len(part.body) <= chunk for part in parts)
    assert [part.end_of_stream for part in parts] == [False] * (len(parts) - 1) + [last]
    for message, raw in zip(messages, wire.chunks(which[1], memoryview(body), chunk, last=last),
                            strict=True):  # fmt: skip
        assert message.SerializeToString() == raw


@pytest.mark.parametrize("with_body", [False, True])
def test_the_choice_is_given_in_a_header_and_in_metadata(with_body: bool) -> None:
    raw = responses.destination("10.0.0.1:8000,10.0.0.2:8000", with_body=with_body)
    message = pb.ProcessingResponse.FromString(raw)
    part = message.request_body if with_body else message.request_headers
    (option,) = part.response.header_mutation.set_headers
    assert option.header.key == "x-gateway-destination-endpoint"
    assert option.header.raw_value == b"10.0.0.1:8000,10.0.0.2:8000"
    assert not option.header.value  # gateways take the other one
    assert part.response.clear_route_cache
    fields = message.dynamic_metadata.fields["envoy.lb"].struct_value.fields
    assert fields["x-gateway-destination-endpoint"].string_value == "10.0.0.1:8000,10.0.0.2:8000"
