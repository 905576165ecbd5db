"""What a replay found out: figures over all requests, and arrays with one value a request."""

import math
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from routecore.routers.explanation import Term

SHOWN = 96
"""Decisions of a run that its page shows."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Spread(msgspec.Struct, frozen=True):
    """A distribution; NaN where no request had a value."""

    mean: float
    p50: float
    p90: float
    p99: float


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was replayed, and on what fleet."""

    trace: str
    strategy: str
    parameters: dict[str, Any]
    seed: int
    endpoints: int
    speedup: float
    engine: str
    block_size: int
    kv_blocks: int
    routers: int
    share: str | None = None
    kv_event_delay_ms: float | None = None
    hold: bool = False


class PerRequest(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One value a request, in trace order. Times are milliseconds of simulated time.

    Attributes:
        endpoint: Number of the endpoint it was last sent to; -1 for none.
        arrival_ms: Arrival at the router; NaN if it never came to that.
        dispatch_ms: When the router sent it to that endpoint: later than its arrival if it had to
            wait for room. NaN if it never did.
        admitted_ms: When that endpoint first took it into a batch; NaN if it never did.
        turned_away_ms: When the router turned it away after it had waited there; NaN if it did not.
        first_token_ms: First token; NaN if there was none.
        end_ms: Last token; NaN if there was none.
        cached_tokens: Prompt tokens found in the endpoint's cache.
        input_tokens: Prompt tokens.
        output_tokens: Tokens it was to generate.
        session: Number of its session; -1 for none.
    """

    endpoint: Ints
    arrival_ms: Floats
    dispatch_ms: Floats
    admitted_ms: Floats
    turned_away_ms: Floats
    first_token_ms: Floats
    end_ms: Floats
    cached_tokens: Ints
    input_tokens: Ints
    output_tokens: Ints
    session: Ints

    def __repr__(self) -> str:
        return f"<PerRequest of {len(self.endpoint)} requests>"

    @property
    def ttft_ms(self) -> Floats:
        """Time to first token."""
        return self.first_token_ms - self.arrival_ms

    @property
    def wait_ms(self) -> Floats:
        """Time at the router, part of the time to first token; 0 where it was sent at once."""
        return self.dispatch_ms - self.arrival_ms

    @property
    def e2e_ms(self) -> Floats:
        """Arrival to last token."""
        return self.end_ms - self.arrival_ms

    @property
    def tpot_ms(self) -> Floats:
        """Time per output token after the first; NaN for outputs of one token."""
        gaps = np.where(self.output_tokens > 1, self.output_tokens - 1.0, np.nan)
        return (self.end_ms - self.first_token_ms) / gaps

    def queued(self, where: Literal["router", "endpoints"]) -> tuple[Floats, Floats]:
        """When each request began and ceased to wait there, ms; those that never did are left out.

        Args:
            where: "router": until it was sent, or turned away. "endpoints": in the queue of the one
                it was sent to, until that took it into a batch.
        """
        if where == "router":
            sent = np.where(np.isnan(self.dispatch_ms), self.turned_away_ms, self.dispatch_ms)
            begin, end = self.arrival_ms, sent
        else:
            begin, end = self.dispatch_ms, self.admitted_ms
        known = np.isfinite(begin) & np.isfinite(end)
        return begin[known], end[known]

    def queue(self, moments: int = 96) -> tuple[float, Ints]:
        """Requests that waited at the router, at so many moments.

        Returns:
            Milliseconds from the first arrival to the last moment, and the numbers.
        """
        came, went = (np.sort(times) for times in self.queued("router"))
        if not len(came):
            return 0.0, np.zeros(moments, dtype=np.int64)
        span = float(max(came[-1], went[-1]) - came[0])
        at = came[0] + np.linspace(0, span, moments)
        waiting = np.searchsorted(came, at, "right") - np.searchsorted(went, at, "right")
        return span, waiting.astype(np.int64)

    def session_spread(self) -> tuple[float, float]:
        """Endpoints a session used, and changes of endpoint from turn to turn: means over the
        sessions of two turns and more; NaN without such."""
        sent = (self.session >= 0) & (self.endpoint >= 0)
        order = np.lexsort((self.arrival_ms[sent], self.session[sent]))
        session, endpoint = self.session[sent][order], self.endpoint[sent][order]
        same = session[1:] == session[:-1]
        long = np.unique(session[1:][same])
        if not len(long):
            return math.nan, math.nan
        pairs = np.unique(np.stack((session, endpoint)), axis=1)[0]
        flips = np.count_nonzero(same & (endpoint[1:] != endpoint[:-1]))
        return float(np.isin(pairs, long).sum() / len(long)), float(flips / len(long))


class Considered(msgspec.Struct, frozen=True):
    """What an endpoint scored in a decision.

    Attributes:
        endpoint: Its number.
        score: NaN where the strategy compares nothing.
        terms: The parts of the score, with their units.
    """

    endpoint: int
    score: float
    terms: tuple[Term, ...]


class Decision(msgspec.Struct, frozen=True):
    """Why a request went where it went.

    Attributes:
        request: Its number in the trace.
        time_ms: When, in simulated time.
        endpoint: The endpoint that was chosen.
        among: How many there were to choose from.
        candidates: The chosen one, then those nearest to it by score, six at most.
    """

    request: int
    time_ms: float
    endpoint: int
    among: int
    candidates: tuple[Considered, ...]

    @classmethod
    def of(cls, found: tuple[int, float, int, int, list[Any]]) -> "Decision":
        """As the compiled replay returns it."""
        request, time, endpoint, among, candidates = found
        scored = (
            Considered(endpoint, score, tuple(Term(*term) for term in terms))
            for endpoint, score, terms in candidates
        )
        return cls(request, time, endpoint, among, tuple(scored))


class ReplayResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One replay of a trace.

    Attributes:
        settings: What was replayed.
        requests: Requests in the trace.
        served: Those that got their last token.
        rejected: Those that need more KV blocks than an engine has.
        failed: Those lost with an engine, or that found none.
        shed: Those that waited at the router for as long as they may.
        wait_ms: Time at the router, part of the time to first token.
        preemptions: How often an engine dropped a request to compute it again.
        token_hit_rate: Prompt tokens found in caches, a prompt token of the trace.
        ttft_ms: Time to first token.
        tpot_ms: Time per output token after the first.
        e2e_ms: Arrival to last token.
        max_over_mean_load: Most against mean requests in flight on an endpoint, over arrivals.
        max_share: Largest share of the requests that one endpoint got.
        goodput: Share with TTFT ≤ 1 s + 62.5 ms per 1,000 prompt tokens and TPOT ≤ 50 ms.
        endpoints_per_session: Mean over sessions of several turns; NaN without such.
        flips_per_session: Changes of endpoint from turn to turn, likewise.
        makespan_ms: First arrival to last token.
        output_tokens_per_s: Tokens a simulated second.
        decisions_per_s: Choices a wall-clock second of choosing.
        wall_s: Wall-clock seconds of the replay.
        per_request: Arrays.
        decisions: Those that were to be kept, in order.
    """

    settings: Settings
    requests: int
    served: int
    rejected: int
    failed: int
    shed: int
    preemptions: int
    token_hit_rate: float
    wait_ms: Spread
    ttft_ms: Spread
    tpot_ms: Spread
    e2e_ms: Spread
    max_over_mean_load: float
    max_share: float
    goodput: float
    endpoints_per_session: float
    flips_per_session: float
    makespan_ms: float
    output_tokens_per_s: float
    decisions_per_s: float
    wall_s: float
    per_request: PerRequest
    decisions: tuple[Decision, ...] = ()

    def __repr__(self) -> str:
        ran, ttft = self.settings, self.ttft_ms.mean
        return f"<ReplayResult {ran.strategy} on {ran.trace}: mean TTFT {ttft:.0f} ms>"

    def as_dict(self) -> dict[str, Any]:
        """The figures without the arrays, ready for JSON: NaN becomes None."""
        figures = {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if name not in ("settings", "per_request", "decisions")
        }
        plain = msgspec.to_builtins({**msgspec.to_builtins(self.settings), **figures})
        found: dict[str, Any] = without_nan(plain)
        return found


def without_nan(value: Any) -> Any:
    """The value with None for every number that JSON cannot write."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
