"""The naive twin of endpoint health: the rules as documented, over lists and dicts."""

from dataclasses import dataclass, field

from routecore import HealthPolicy


@dataclass
class Endpoint:
    """All that is remembered of one endpoint."""

    state: str = "in"
    entered: float = 0.0
    until: float = 0.0
    answers: int = 0
    strikes: int = 0
    stay: int = 0
    reason: str = ""
    since_served: list[str] = field(default_factory=list)
    last: list[bool] = field(default_factory=list)


class NaiveHealth:
    """Who is in, out, or on probation. Without jitter; times never go back here."""

    def __init__(self, policy: HealthPolicy, urls: list[str]) -> None:
        self.policy = policy
        self.all = {url: Endpoint() for url in urls}
        self.requests: dict[str, tuple[str, int, bool]] = {}
        self.start = 0.0

    def sent(self, url: str, name: str) -> None:
        """A request left for the endpoint."""
        self.requests[name] = (url, self.all[url].stay, False)

    def first_token(self, name: str, in_flight: int) -> None:
        """Its first token came."""
        url, stay, reported = self.requests[name]
        if not reported:
            self.requests[name] = (url, stay, True)
            self._answered(url, stay, in_flight)

    def _answered(self, url: str, stay: int, in_flight: int) -> None:
        it = self.all[url]
        if stay != it.stay:
            return
        if it.state == "out":
            it.state, it.answers, it.since_served, it.last = "probation", 1, [], []
        elif it.state == "probation":
            if it.answers + 1 >= self.policy.ramp and 2 * in_flight <= 2 + it.answers:
                it.state, it.entered = "in", self.now
            else:
                it.answers += 1

    def served(self, name: str, now: float, in_flight: int) -> None:
        """It was answered to its end."""
        self.now = now
        url, stay, reported = self.requests.pop(name)
        if not reported:
            self._answered(url, stay, in_flight)
        it = self.all[url]
        if stay == it.stay:
            it.since_served = []
            it.last = [*it.last, False][-self.policy.window :]

    def failed(self, name: str, now: float, reason: str) -> None:
        """It failed."""
        self.now = now
        url, stay, reported = self.requests.pop(name)
        it = self.all[url]
        if stay != it.stay or reason == "client" or (reported and reason == "unknown"):
            return
        it.since_served.append(reason)
        it.last = [*it.last, True][-self.policy.window :]
        if it.state == "out" and now < it.until:
            return
        if it.state != "in":
            it.strikes += 1
            self._leave(it, now, reason)
            if reason == "connect":
                self._lost(url)
            return
        refused = it.since_served.count("connect") >= self.policy.refusals
        full = len(it.last) == self.policy.window
        share = sum(it.last) >= self.policy.failure_share * self.policy.window
        failing = len(it.since_served) >= self.policy.failures or (full and share)
        if not refused and not (failing and self._may_leave(it)):
            return
        if now - self.start >= it.entered + self.policy.forgive_after:
            it.strikes = 0
        self._leave(it, now, reason)
        if refused:
            self._lost(url)

    def _may_leave(self, it: Endpoint) -> bool:
        out = sum(e.state == "out" and e.reason != "connect" for e in self.all.values())
        enough = min(5, self.policy.window)
        well = any(
            e is not it
            and e.state == "in"
            and len(e.last) >= enough
            and 10 * sum(e.last) <= len(e.last)
            and not e.since_served
            for e in self.all.values()
        )
        return out + 1 <= max(1, self.policy.max_out_share * len(self.all)) or well

    def _leave(self, it: Endpoint, now: float, reason: str) -> None:
        delay = min(self.policy.base_delay * 2**it.strikes, self.policy.max_delay)
        it.state, it.until, it.reason = "out", now + delay, reason
        it.stay += 1

    def _lost(self, url: str) -> None:
        """What was on an endpoint that refuses connections is gone."""
        self.requests = {n: r for n, r in self.requests.items() if r[0] != url}
