"""The requests of one router that wait for room, and what wakes them."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from routecore import _core
from routecore.errors import RouteError
from routecore.hold.ends import wait_for_ends
from routecore.hold.ticket import Ticket
from routecore.hold.verdicts import Go, Held, HoldCounts, HoldLimits, Rejected, Waits
from routecore.process import watch
from routecore.uncopied import Uncopied

_TICK = 1.0  # seconds between two looks at what changes without an end, such as leases
_PATIENT = 5.0  # the same for those who are not first

Sources: TypeAlias = tuple[Sequence[Any], Any, Any]
Source: TypeAlias = Callable[[], Sources]
"""Endpoints, engine stats and request stats as they are when it is called."""


class Waiter:
    """One request in a hold, from its arrival until it goes."""

    source: Source | Sources
    request_id: str | None
    session: str | None
    until: float
    turn: float

    def __init__(
        self, source: Source | Sources, request_id: str | None, session: str | None = None
    ) -> None:
        self.source, self.request_id, self.session = source, request_id, session
        self.number = -1
        self.keys: tuple[Any, ...] = ()
        self.arrived: float = time.monotonic()
        self.until = self.turn = 0.0
        self.outcome: Go | Exception | None = None
        self.left = self.polled = False
        self.wake: Callable[[], object] = lambda: None

    def read(self) -> Sources:
        """What is known of the fleet now."""
        return self.source() if callable(self.source) else self.source

    def same(self, other: "Waiter") -> bool:
        """Whether one look at the fleet is good for both."""
        if callable(self.source) or callable(other.source):
            return self.source == other.source
        return all(a is b for a, b in zip(self.source, other.source, strict=True))


class Hold(Uncopied):
    """The requests of one router that wait for room. `router.hold` has it."""

    def __init__(self, router: _core.Router, name: str, limits: HoldLimits) -> None:
        self.limits = limits
        given = {k: v for k, v in msgspec.structs.asdict(limits).items() if v is not None}
        given["sessions"] = limits.sessions is not None
        try:
            self._core = _core.Hold(router, **given)
        except (TypeError, OverflowError) as error:
            raise RouteError(f"hold: {error}") from None
        self._name = name
        self._max_wait = 600.0 if limits.max_wait_s is None else float(limits.max_wait_s)
        reserve = 27.0 if limits.reserve_after_s is None else float(limits.reserve_after_s)
        self._reserve_after = reserve
        self._waiters: dict[int, Waiter] = {}
        # Outcomes that nobody has asked for yet, of those who ask by themselves.
        self._settled: dict[int, Waiter] = {}
        self._after_fork()
        watch(self)

    def _at_exit(self) -> None:
        pass  # it has no thread

    def _after_fork(self) -> None:
        """Nobody waits: who does, does so in the parent."""
        self._waiters.clear()
        self._settled.clear()
        self._lock, self._pumping = threading.Lock(), threading.Lock()
        self._again = False

    @property
    def counts(self) -> HoldCounts:
        """What became of its requests so far."""
        waiting, tokens, admitted, held, waited, rejected, left = self._core.counts
        return HoldCounts(waiting, tokens, admitted, held, waited, dict(rejected), left)

    def enter(
        self,
        waiter: Waiter,
        keys: tuple[Any, ...],
        priority: float,
        patience: float | None,
    ) -> None:
        """Give the request its place, and try it."""
        session, body, ids = (*keys, None, None, None)[:3]
        now = waiter.arrived
        number = self._core.arrive(
            session, body, ids, waiter.request_id, float(priority), patience, now, waiter.session
        )
        waiter.number, waiter.keys = number, keys
        waiter.until = now + min(self._max_wait, self._max_wait if patience is None else patience)
        waiter.turn = now + self._reserve_after
        with self._lock:
            self._waiters[number] = waiter
            wait_for_ends(self, True)
        self._try([waiter], first=True)

    def _try(self, waiters: list[Waiter], *, first: bool) -> None:
        numbers = [waiter.number for waiter in waiters]
        try:
            sources = waiters[0].read()
            when = _time(waiters[0], sources[2])
            verdicts = self._core.retry(*sources, numbers, time.monotonic(), when, first)
        except Exception as error:  # ours, or the host's own: it is theirs who wait
            for waiter in waiters:
                self._core.leave(waiter.number)
                self._settle(waiter.number, error)
            return
        for verdict in verdicts:
            self._act_on(verdict, sources[2])

    def _act_on(self, verdict: tuple[Any, ...], request_stats: Any) -> None:
        number, url, waited, reason, retry_after = verdict
        if url is not None:
            with self._lock:
                waiter = self._waiters.get(number)
            ticket = None
            if waiter is not None and waiter.request_id is not None:
                when, table = _time(waiter, request_stats), request_stats.table
                ticket = Ticket(url, waiter.request_id, waited, table, when)
            self._settle(number, Go(url, ticket, waited))
        elif reason == "endpoints":
            text = f"{self._name}: no endpoint is eligible; all are asleep or unhealthy"
            self._settle(number, RouteError(text))
        elif reason is not None:
            self._settle(number, Rejected(reason, retry_after))

    def _settle(self, number: int, outcome: Go | Exception) -> None:
        with self._lock:
            waiter = self._waiters.pop(number, None)
            wait_for_ends(self, bool(self._waiters))
            left = waiter is None or waiter.left
            if waiter is not None:
                waiter.outcome = outcome
                if waiter.polled:
                    self._settled[number] = waiter
        if left:
            if isinstance(outcome, Go) and outcome.ticket is not None:
                outcome.ticket.fail("client")
        elif waiter is not None:
            waiter.wake()

    def leave(self, waiter: Waiter) -> None:
        """The request goes away; if it holds a place by now, the place is free again."""
        with self._lock:
            waiter.left = True
            self._waiters.pop(waiter.number, None)
            wait_for_ends(self, bool(self._waiters))
            outcome = waiter.outcome
        self._core.leave(waiter.number)
        if isinstance(outcome, Go) and outcome.ticket is not None:
            outcome.ticket.fail("client")

    def ahead(self, number: int) -> int:
        """Requests of its model that stand before a waiter."""
        return self._core.before(number)

    def pump(self) -> None:
        """Let those go who may. Ends call it; so do those who wait, now and then."""
        self._again = True
        while self._again and self._pumping.acquire(blocking=False):
            try:
                self._again = False
                self._round()
            finally:
                self._pumping.release()

    def _round(self) -> None:
        for verdict in self._core.expired(time.monotonic()):
            self._act_on(verdict, None)
        numbers = self._core.due()
        with self._lock:
            due = [self._waiters[number] for number in numbers if number in self._waiters]
        for _, alike in itertools.groupby(due, key=_Alike):
            self._try(list(alike), first=False)

    def pause(self, waiter: Waiter) -> float:
        """Seconds for which the waiter may sleep without looking."""
        now = time.monotonic()
        with self._lock:
            first = next(iter(self._waiters), None) == waiter.number
        bounds = [at - now for at in (waiter.until, waiter.turn) if at > now]
        return max(0.001, min(_TICK if first else _PATIENT, *bounds, _PATIENT))

    def look(self, waiter: Waiter) -> None:
        """Woken by time: the first looks for all, and everybody minds its own moments."""
        now = time.monotonic()
        with self._lock:
            first = next(iter(self._waiters), None) == waiter.number
        if first or now >= waiter.until or now >= waiter.turn:
            waiter.turn = float("inf") if now >= waiter.turn else waiter.turn
            self.pump()

    def waiter(self, number: int) -> Waiter:
        """The waiter of that number.

        Raises:
            RouteError: There is none: it went, was rejected or left.
        """
        with self._lock:
            found = self._waiters.get(number) or self._settled.get(number)
        if found is None:
            raise RouteError(f"hold: nobody waits under the number {number}")
        return found

    def abandon(self, number: int) -> None:
        """The request of a `Wait` goes away; a place that it got meanwhile is free again."""
        with self._lock:
            found = self._waiters.get(number) or self._settled.pop(number, None)
        if found is not None:
            self.leave(found)

    def forget(self, waiter: Waiter) -> None:
        """Its outcome was fetched."""
        with self._lock:
            self._settled.pop(waiter.number, None)

    def ask_again(self, waiter: Waiter) -> None:
        """Try this one now, if it is its turn."""
        if waiter.number in self._core.due():
            self._try([waiter], first=False)

    def held(self, most: int = 64) -> tuple[Held, ...]:
        """The requests that wait, oldest first, and what each waits for; changes nothing.

        Args:
            most: How many are looked at.
        """
        return tuple(self.looks(most))

    def looks(self, most: int = 64) -> Iterator[Held]:
        """`held`, one by one: for loops that have other work in between."""
        with self._lock:
            oldest = list(itertools.islice(self._waiters.values(), most))
        for waiter in oldest:
            waits = fault = None
            try:
                waits = self.explain(waiter.read(), waiter.keys)
            except Exception as error:  # of this one: the others are shown all the same
                fault = f"{type(error).__name__}: {error}"
            if waiter.outcome is None and not waiter.left:  # else it went meanwhile
                waited, ahead = time.monotonic() - waiter.arrived, self.ahead(waiter.number)
                in_session = waiter.session is not None
                yield Held(waiter.request_id, waited, ahead, waits, fault, in_session)

    def explain(self, sources: Sources, keys: tuple[Any, ...]) -> Waits | None:
        """What the request would wait for; None if it would go at once."""
        session, body, ids = (*keys, None, None, None)[:3]
        now = time.monotonic()
        found = self._core.explain(*sources, session, body, ids, now)
        if found is None:
            return None
        url, in_use, added, room = found
        return Waits(url, in_use, added, room, self.counts.waiting)


def _time(waiter: Waiter, request_stats: Any) -> float:
    """The monitor's time: that of its stats, and what has passed if they are as old as the wait."""
    seconds = float(getattr(request_stats, "now", 0.0))
    return seconds if callable(waiter.source) else seconds + time.monotonic() - waiter.arrived


class _Alike:
    """Groups waiters that one look at the fleet is good for."""

    def __init__(self, waiter: Waiter) -> None:
        self.waiter = waiter

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alike) and self.waiter.same(other.waiter)

    __hash__ = None  # type: ignore[assignment]
