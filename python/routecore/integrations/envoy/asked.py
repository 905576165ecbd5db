"""What of a request's first message a picker reads."""

from typing import Any, NamedTuple

from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET = "x-gateway-destination-endpoint-subset"

_MODES = processing_mode_pb2.ProcessingMode
NONE: int = _MODES.NONE
STREAMED: int = _MODES.STREAMED
FULL_DUPLEX: int = _MODES.FULL_DUPLEX_STREAMED
BUFFERED: tuple[int, ...] = (_MODES.BUFFERED, _MODES.BUFFERED_PARTIAL)


class Modes(NamedTuple):
    """What the gateway sends of bodies, and what it expects back."""

    request: int
    response: int


STANDARD = Modes(FULL_DUPLEX, FULL_DUPLEX)
"""What the protocol demands of gateways, for those that do not say."""


def modes(message: Any) -> Modes:
    """How the gateway is configured."""
    if not message.HasField("protocol_config"):
        return STANDARD
    config = message.protocol_config
    return Modes(config.request_body_mode, config.response_body_mode)


def subset(message: Any) -> tuple[str, ...] | None:
    """The endpoints that the gateway allows; None: all."""
    if not message.HasField("metadata_context"):
        return None
    found = message.metadata_context.filter_metadata
    if SUBSET_NAMESPACE not in found:
        return None
    fields = found[SUBSET_NAMESPACE].fields
    if SUBSET not in fields:
        return None
    value = fields[SUBSET]
    if value.HasField("list_value"):
        return tuple(item.string_value for item in value.list_value.values)
    return tuple(part.strip() for part in value.string_value.split(",") if part.strip())


def headers(part: Any) -> dict[str, str]:
    """Headers by name, in small letters; of several of a name the last."""
    return {
        header.key: (header.raw_value or header.value.encode()).decode("latin-1")
        for header in part.headers.headers
    }
