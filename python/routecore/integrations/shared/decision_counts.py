"""How many decisions there were and how long they took, summed up when somebody asks.

A counter and a histogram of prometheus_client cost a request some 2.5 µs, as much as the choice
itself. Here a decision only leaves its time; a scrape, or every thousandth decision, sorts the
times into buckets.
"""

import os
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from routecore.process import renew_lock

# A decision takes microseconds; a bucket of milliseconds means that something is wrong.
BUCKETS = (2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 2e-2)
_BOUNDS = (*map(str, BUCKETS), "+Inf")
OUTCOMES = ("strategy", "fallback", "shadow")
_MAX_LEFT = 1024  # times that wait to be summed up

_DECISIONS = (
    "routecore_decisions",
    "Requests routed: by the strategy, by fallback after an error, or in the shadow.",
    ["host", "strategy", "outcome"],
)
_SECONDS = ("routecore_decision_seconds", "Time that one choice takes.", ["host", "strategy"])


class DecisionCounts(Protocol):
    """The decisions of one strategy behind one host."""

    def count(self, outcome: str) -> None:
        """One more with that outcome, whose time is not known."""

    def chose(self, seconds: float) -> None:
        """The strategy chose, in that time."""

    def shadowed(self, seconds: float) -> None:
        """The strategy chose beside the host, in that time."""


class _Summed:
    """Decisions of this process."""

    def __init__(self) -> None:
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._buckets = [0] * len(_BOUNDS)
        self._seconds = 0.0
        self._left: deque[float] = deque()
        self._shadow: deque[float] = deque()
        self._lock = threading.Lock()
        renew_lock(self, "_lock")

    def count(self, outcome: str) -> None:
        with self._lock:
            self._outcomes[outcome] += 1

    def chose(self, seconds: float) -> None:
        self._left.append(seconds)
        if len(self._left) >= _MAX_LEFT:
            self.sum_up()

    def shadowed(self, seconds: float) -> None:
        self._shadow.append(seconds)
        if len(self._shadow) >= _MAX_LEFT:
            self.sum_up()

    def sum_up(self) -> tuple[dict[str, int], list[int], float]:
        """Sort the times that were left into their buckets; gives the sums as they are then."""
        with self._lock:
            for outcome, left in (("strategy", self._left), ("shadow", self._shadow)):
                for _ in range(len(left)):
                    seconds = left.popleft()
                    self._outcomes[outcome] += 1
                    self._buckets[bisect_left(BUCKETS, seconds)] += 1
                    self._seconds += seconds
            return dict(self._outcomes), list(self._buckets), self._seconds


class _AllSummed:
    """Those of every strategy and host; what the registry collects."""

    def __init__(self) -> None:
        self._summed: dict[tuple[str, str], _Summed] = {}

    def of(self, host: str, strategy: str) -> DecisionCounts:
        """The same for the same labels."""
        return self._summed.setdefault((host, strategy), _Summed())

    def collect(self) -> Iterator[Metric]:
        decisions = CounterMetricFamily(_DECISIONS[0], _DECISIONS[1], labels=_DECISIONS[2])
        seconds = HistogramMetricFamily(_SECONDS[0], _SECONDS[1], labels=_SECONDS[2])
        for labels, summed in list(self._summed.items()):
            outcomes, buckets, total = summed.sum_up()
            for outcome, number in outcomes.items():
                decisions.add_metric([*labels, outcome], number)
            below = list(zip(_BOUNDS, accumulate(buckets), strict=True))
            seconds.add_metric(labels, below, total)
        yield decisions
        yield seconds


class _AllShared:
    """The same where several processes write into one directory, which only the library's own
    counters and histograms do."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._decisions = Counter(*_DECISIONS, registry=registry)
        self._seconds = Histogram(*_SECONDS, buckets=BUCKETS, registry=registry)

    def of(self, host: str, strategy: str) -> DecisionCounts:
        return _Shared(self._decisions, self._seconds, host, strategy)


class _Shared:
    def __init__(self, decisions: Counter, seconds: Histogram, host: str, strategy: str) -> None:
        self._outcomes: dict[str, Any] = {
            name: decisions.labels(host, strategy, name) for name in OUTCOMES
        }
        self._seconds = seconds.labels(host, strategy)

    def count(self, outcome: str) -> None:
        self._outcomes[outcome].inc()

    def chose(self, seconds: float) -> None:
        self._outcomes["strategy"].inc()
        self._seconds.observe(seconds)

    def shadowed(self, seconds: float) -> None:
        self._outcomes["shadow"].inc()
        self._seconds.observe(seconds)


class AllDecisionCounts(Protocol):
    """Decisions by host and strategy in one registry."""

    def of(self, host: str, strategy: str) -> DecisionCounts:
        """Those with these labels."""


def all_decision_counts(registry: CollectorRegistry) -> AllDecisionCounts:
    """Where decisions are counted that the registry shows."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ or "prometheus_multiproc_dir" in os.environ:
        return _AllShared(registry)
    summed = _AllSummed()
    registry.register(summed)
    return summed
