"""Endpoints that fail are left alone until they are well again: settings, and who is out."""

import logging
import secrets
from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

from routecore import _core

_log = logging.getLogger("routecore.health")

Reason = Literal["connect", "status", "busy", "timeout", "broken", "client", "unknown"]
"""Why a request failed: no connection (refused, DNS, TLS); an error of the endpoint's own (5xx);
it has too much to do (429, 503); no answer in time; the answer broke off; the client left, which
says nothing of the endpoint; the host does not say."""

REASONS: tuple[Reason, ...] = ("connect", "status", "busy", "timeout", "broken", "unknown")
"""Those for which an endpoint goes out."""


class HealthPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When an endpoint goes out, for how long, and how it comes back.

    The defaults are for everybody. `HealthPolicy(enabled=False)` switches it off.

    Attributes:
        enabled: False: nobody ever goes out.
        failures: Requests that fail in a row until an endpoint goes out.
        refusals: Refused connections in a row until it goes out.
        failure_share: Share of its last `window` requests that fail until it goes out.
        window: Requests that the share is taken of, 64 at most.
        base_delay: Seconds that it stays out the first time; doubled each time a probe fails.
        max_delay: The longest stay, seconds.
        jitter: Share by which a stay is shortened at most, at random.
        max_retry_after: The longest Retry-After that is honoured, seconds.
        max_out_share: Share of the endpoints that failures may put out unless one is seen to be
            well. Refused connections and Retry-After may put out all.
        ramp: Answers until an endpoint that is back counts as well. It may have one request more
            in flight with each.
        probe_timeout: Seconds after which a probe without an answer makes room for another.
        forgive_after: Seconds in until the next stay is `base_delay` again.
        seed: Of the jitter; None draws one.
    """

    enabled: bool = True
    failures: int = 5
    refusals: int = 2
    failure_share: float = 0.5
    window: int = 20
    base_delay: float = 1.0
    max_delay: float = 10.0
    jitter: float = 0.2
    max_retry_after: float = 300.0
    max_out_share: float = 0.5
    ramp: int = 8
    probe_timeout: float = 30.0
    forgive_after: float = 30.0
    seed: int | None = None


class Standing(msgspec.Struct, frozen=True):
    """Where an endpoint stands that is not in.

    Attributes:
        state: `out`: it gets one probe at a time, when that is due. `probation`: it answered one,
            and gets more to do with each further answer. `doubted`: another router has it out; it
            gets one request of this one at a time, until one is answered, for 3 seconds at most.
        since: When it went out, in seconds of the host's clock.
        reason: Why; a word of `Reason`. None while it is doubted.
        until: When its next probe is due, while it is out.
    """

    state: Literal["out", "probation", "doubted"]
    since: float
    reason: Reason | None
    until: float | None


def apply(policy: HealthPolicy, core: _core.Table) -> None:
    """Make a table go by the policy from now on; everybody is in.

    Raises:
        RouteError: A setting makes no sense; names it.
    """
    counts = (policy.failures, policy.refusals, policy.window, policy.ramp)
    shares = (policy.failure_share, policy.max_out_share, policy.jitter)
    seconds = (
        policy.base_delay,
        policy.max_delay,
        policy.max_retry_after,
        policy.probe_timeout,
        policy.forgive_after,
    )
    seed = secrets.randbits(64) if policy.seed is None else policy.seed
    core.set_health((policy.enabled, counts, shares, seconds), seed)


def standing_of(found: tuple[str, float, str | None, float | None] | None) -> Standing | None:
    """The standing that the core tells of."""
    return None if found is None else Standing(*cast(tuple[Any, Any, Any, Any], found))


def tell(news: Sequence[tuple[str, str | None, float]]) -> None:
    """Log one line for each endpoint that left or is back."""
    for url, reason, seconds in news:
        if reason is None:
            # As loud as the line before it: who read that one waits for this.
            _log.warning("endpoint %s is back after %.1f s", url, seconds)
        else:
            _log.warning(
                "endpoint %s is out: its requests fail (%s); next try in %.1f s",
                url,
                reason,
                seconds,
            )
