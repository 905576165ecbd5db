"""A stream with lost, repeated, reordered and garbled messages, and engines that restart.

`ROUTECORE_FAULT_EVENTS=1000000` makes the run as long as the figure in the README.
"""

import os
import random
from collections.abc import Iterator

import pytest
from kv_engine import KVEngine, Path, tokens_of
from routecore.kv_events import KVIndex

URL = "http://a:8000"
EVENTS = int(os.environ.get("ROUTECORE_FAULT_EVENTS", "20000"))
RESTARTS = 20


class Link:
    """Carries one engine's messages to an index, not without faults."""

    def __init__(self, engine: KVEngine, seed: int, can_replay: bool) -> None:
        self.engine, self.can_replay = engine, can_replay
        self.random = random.Random(seed)
        self.index = KVIndex(seed=7)
        self.late: list[tuple[int, bytes]] = []
        self.resyncs = 0

    def carry(self) -> None:
        """One message, with one of the faults in 1 % each."""
        seq, payload = self.engine.message()
        late, self.late = self.late, []
        fault = self.random.random()
        if fault < 0.01:
            pass  # lost
        elif fault < 0.02:
            self.deliver(seq, payload)
            self.deliver(seq, payload)
        elif fault < 0.03:
            self.late = [(seq, payload)]
        elif fault < 0.04:
            cut = self.random.randrange(len(payload))
            noise = self.random.randbytes(self.random.randrange(60))
            self.deliver(seq, self.random.choice([payload[:cut], b"\xc1" + noise, b""]))
        else:
            self.deliver(seq, payload)
        for message in late:
            self.deliver(*message)

    def deliver(self, seq: int, payload: bytes) -> None:
        self.resync(self.index.core.live(URL, 0, [(seq, payload)], self.can_replay))

    def resync(self, start: int | None) -> None:
        """Answer replays until none is asked for; more messages come meanwhile."""
        if start is None:
            return
        while start is not None:
            assert self.can_replay
            assert not self.index.is_exact(URL)
            self.nothing_is_served()
            again = None
            for at, message in enumerate(self.engine.replay(start)):
                if at == 1 and self.random.random() < 0.3:
                    again = self.index.core.live(URL, 0, [self.engine.message()], True)
                if again is None:
                    again = self.index.core.replayed(URL, 0, [message])
                if again is not None:
                    break
                self.nothing_is_served()
            start = self.index.core.replay_end(URL, 0, True) if again is None else again
        self.resyncs += 1

    def restart(self) -> None:
        """The engine comes back as another process, seen by its numbers or by its connection."""
        self.late = []
        self.engine.restart()
        if self.random.random() < 0.5:
            for _ in range(self.random.randrange(3)):
                self.engine.message()  # heard by nobody
            self.index.core.disconnected(URL, 0, self.can_replay)
            self.resync(self.index.core.reconnected(URL, 0, self.can_replay))

    def nothing_is_served(self) -> None:
        for path in list(self.engine.held)[:2]:
            assert self.index.matched(tokens_of(path), [URL]) == [(0, 0, 0)]

    def paths(self) -> Iterator[Path]:
        """Every held block's prefix, and for each a sibling that may not be held."""
        for path in self.engine.held:
            yield path
            yield (*path, 6)

    def last_seq(self) -> int | None:
        counters = self.index.counters(URL)
        return None if counters is None else counters["last_seq"]

    def matched(self, path: Path) -> int:
        return self.index.matched(tokens_of(path), [URL])[0][0] // 4


def restarts(events: int) -> list[int]:
    return [events * (i + 1) // (RESTARTS + 1) for i in range(RESTARTS)]


@pytest.mark.parametrize("seed", [1, 2])
def test_after_each_resync_the_index_is_the_engines_state(seed: int) -> None:
    engine = KVEngine(seed)
    link = Link(engine, seed, can_replay=True)
    due = restarts(EVENTS)
    seen = compared = 0
    while engine.events < EVENTS:
        if due and engine.events >= due[0]:
            due.pop(0)
            link.restart()
        link.carry()
        # What was lost after a restart's own resync shows with the next message only.
        if link.resyncs == seen or link.last_seq() != engine.seq - 1:
            continue
        seen = link.resyncs
        compared += 1
        assert link.index.is_exact(URL)
        assert link.index.blocks == len(engine.held)
        for path in link.paths():
            assert link.matched(path) == engine.depth(path)
    counters = link.index.counters(URL)
    assert counters is not None
    assert counters["restarts"] >= RESTARTS * 3 // 4
    assert compared > EVENTS / 200
    assert min(counters[n] for n in ("gaps", "duplicates", "unreadable", "replays")) > 0


def test_without_replay_nothing_is_promised_that_the_engine_lost() -> None:
    engine = KVEngine(3)
    link = Link(engine, 3, can_replay=False)
    due = restarts(EVENTS)
    checked = 0
    while engine.events < EVENTS:
        if due and engine.events >= due[0]:
            due.pop(0)
            link.restart()
        link.carry()
        # A loss shows with the next message: compare where the last one was heard.
        if link.last_seq() != engine.seq - 1:
            continue
        checked += 1
        if checked % 10 == 0:
            for path in link.paths():
                depth = link.matched(path)
                assert depth <= engine.depth(path)
                assert depth == engine.depth(path) or not link.index.is_exact(URL)
    assert checked > 1000
