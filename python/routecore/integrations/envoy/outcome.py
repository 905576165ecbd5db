"""What the head of an answer says of the endpoint, in the words of `on_request_failed`.

Gateways answer in an engine's stead where it cannot be reached. Envoy tells of that in attributes
of the message (`response_attributes`), if it is configured to.
"""

from typing import Any, NamedTuple

from routecore.endpoints.health import Reason
from routecore.integrations.shared.retry_after import seconds_of

_ATTRIBUTES = "envoy.filters.http.ext_proc"
# Bits of `response.flags`, as in Envoy's access log: UT, LR, UR, UF, UC, UO, DC.
_TIMEOUT, _LOCAL_RESET, _REMOTE_RESET, _CONNECT, _TERMINATED = (
    1 << 2,
    1 << 3,
    1 << 4,
    1 << 5,
    1 << 6,
)
# No endpoint, too much in the gateway's own queues, no route, faults it was configured to make, its
# limits, the client: none of these is the endpoint's doing.
_GATEWAYS = sum(1 << bit for bit in (1, 7, 8, 9, 10, 11, 12, 13, 14))
_REASONS: tuple[tuple[int, Reason], ...] = (
    (_CONNECT, "connect"),
    (_TIMEOUT, "timeout"),
    (_REMOTE_RESET | _TERMINATED | _LOCAL_RESET, "broken"),
    (_GATEWAYS, "client"),
)


class Outcome(NamedTuple):
    """The head of an answer.

    Attributes:
        status: Its HTTP status.
        reason: Why there is no answer of the endpoint's own; None: there is one.
        retry_after: Seconds that a busy endpoint asks to be left alone.
        served: Address of the endpoint that answered, or was tried last; None: not known.
        streams: Whether it is a stream of events, whose first piece is a first token.
    """

    status: int | None
    reason: Reason | None
    retry_after: float | None
    served: str | None
    streams: bool


def of(part: Any, attributes: Any) -> Outcome:
    """What the message says.

    Args:
        part: Its headers.
        attributes: Name of the filter → attributes; empty where none are configured.
    """
    status = served = reason = retry_after = None
    streams = False
    for header in part.headers.headers:  # of a dozen, three are read
        name = header.key
        if name == ":status":
            text = header.raw_value or header.value.encode()
            status = int(text) if text.isdigit() and 100 <= int(text) < 600 else None
        elif name == "content-type":
            text = header.raw_value or header.value.encode()
            streams = text.startswith(b"text/event-stream")
        elif name == "retry-after":
            text = header.raw_value or header.value.encode()
            retry_after = seconds_of(text.decode("latin-1"))
    if _ATTRIBUTES in attributes:
        fields = attributes[_ATTRIBUTES].fields
        if "upstream.address" in fields:
            served = fields["upstream.address"].string_value or None
        if "response.flags" in fields:
            flags = int(fields["response.flags"].number_value)
            reason = _reason(flags) if flags else None
    return Outcome(status, reason, retry_after, served, streams)


def _reason(flags: int) -> Reason | None:
    return next((reason for bits, reason in _REASONS if flags & bits), None)
