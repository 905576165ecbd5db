"""What a picker says to its gateway."""

from collections.abc import Mapping
from functools import lru_cache

import msgspec
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

DESTINATION = "x-gateway-destination-endpoint"
NAMESPACE = "envoy.lb"
DROPPED = "x-llm-d-request-dropped-reason"
"""Header of a refusal, by the name that clients of the Gateway API's pickers know."""

_Response = pb.ProcessingResponse

REQUEST_HEADERS: bytes = _Response(request_headers=pb.HeadersResponse()).SerializeToString()
REQUEST_BODY: bytes = _Response(request_body=pb.BodyResponse()).SerializeToString()
REQUEST_TRAILERS: bytes = _Response(request_trailers=pb.TrailersResponse()).SerializeToString()
RESPONSE_HEADERS: bytes = _Response(response_headers=pb.HeadersResponse()).SerializeToString()
RESPONSE_BODY: bytes = _Response(response_body=pb.BodyResponse()).SerializeToString()
RESPONSE_TRAILERS: bytes = _Response(response_trailers=pb.TrailersResponse()).SerializeToString()
"""Replies that change nothing."""


@lru_cache(maxsize=4096)
def destination(endpoints: str, *, with_body: bool) -> bytes:
    """The reply that says where the request goes: in a header, and in metadata.

    Args:
        endpoints: Addresses, the best first, with commas between.
        with_body: Whether it answers the request's body, as for a gateway that buffers.
    """
    common = pb.CommonResponse(clear_route_cache=True)
    option = common.header_mutation.set_headers.add()
    option.header.key = DESTINATION
    option.header.raw_value = endpoints.encode()
    option.append_action = option.OVERWRITE_IF_EXISTS_OR_ADD
    response = pb.ProcessingResponse()
    if with_body:
        response.request_body.response.CopyFrom(common)
    else:
        response.request_headers.response.CopyFrom(common)
    fields = response.dynamic_metadata.fields[NAMESPACE].struct_value.fields
    fields[DESTINATION].string_value = endpoints
    raw: bytes = response.SerializeToString()
    return raw


def refusal(status: int, reason: str, message: str, headers: Mapping[str, str]) -> bytes:
    """An answer of our own to the client.

    Args:
        status: HTTP status.
        reason: A word for it.
        message: For people.
        headers: More of them.
    """
    answer = pb.ImmediateResponse()
    answer.status.code = status
    for name, value in {"content-type": "application/json", DROPPED: reason, **headers}.items():
        option = answer.headers.set_headers.add()
        option.header.key = name
        option.header.raw_value = value.encode()
        option.append_action = option.OVERWRITE_IF_EXISTS_OR_ADD
    error = {"message": message, "type": reason, "code": status}
    answer.body = msgspec.json.encode({"error": error})
    answer.details = f"routecore_{reason}"
    raw: bytes = pb.ProcessingResponse(immediate_response=answer).SerializeToString()
    return raw
