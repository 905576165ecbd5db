"""An engine's cache and publisher, without sockets: what is true, and what it says of it."""

import random
from collections import OrderedDict, deque

from kv_messages import cleared, message, removed, stored

BLOCK = 4
Path = tuple[int, ...]


def tokens_of(path: Path) -> list[int]:
    """A prompt of these blocks; one token more, since the last never counts."""
    return [b * BLOCK + i for b in path for i in range(BLOCK)] + [1 << 20]


class KVEngine:
    """Stores the blocks of random prompts, evicts the oldest, numbers and keeps its messages.

    Args:
        seed: Of its prompts.
        capacity: Blocks that it holds.
        ring: Messages that a replay can give.
    """

    def __init__(self, seed: int, capacity: int = 300, ring: int = 10_000) -> None:
        self.random = random.Random(seed)
        self.capacity = capacity
        self.ring: deque[tuple[int, bytes]] = deque(maxlen=ring)
        self.held: OrderedDict[Path, int] = OrderedDict()
        self.salt = 0
        self.seq = 0
        self.events = 0
        self.clock = 0.0  # goes on through restarts, as time does

    def restart(self) -> None:
        """Another process: no blocks, no messages, other hashes, numbers from 0."""
        self.salt += 1
        self.seq = 0
        self.held.clear()
        self.ring.clear()

    def _hash(self, path: Path) -> int:
        return hash((self.salt, path)) & (2**64 - 1)

    def message(self) -> tuple[int, bytes]:
        """Serve a few prompts; the message about it."""
        events = []
        for _ in range(self.random.randint(1, 4)):
            if self.random.random() < 0.0005:
                self.held.clear()
                events.append(cleared())
                continue
            path = tuple(self.random.randrange(6) for _ in range(self.random.randint(1, 8)))
            known = 0
            while known < len(path) and path[: known + 1] in self.held:
                known += 1
                self.held.move_to_end(path[:known])
            new = [path[: i + 1] for i in range(known, len(path)) if path[: i + 1] not in self.held]
            # A hole in the middle is filled alone; what stood behind it is still there.
            while new:
                run = [new.pop(0)]
                while new and len(new[0]) == len(run[-1]) + 1:
                    run.append(new.pop(0))
                parent = self._hash(run[0][:-1]) if len(run[0]) > 1 else None
                tokens = [t for p in run for t in tokens_of(p[-1:])[:-1]]
                events.append(stored([self._hash(p) for p in run], parent, tokens, BLOCK))
                self.held.update(dict.fromkeys(run, 0))
            gone = []
            while len(self.held) > self.capacity:
                gone.append(self._hash(self.held.popitem(last=False)[0]))
            if gone:
                events.append(removed(gone))
        self.events += len(events)
        self.clock += 0.25
        made = (self.seq, message(*events, old=self.random.random() < 0.3, time=self.clock))
        self.seq += 1
        self.ring.append(made)
        return made

    def replay(self, start: int) -> list[tuple[int, bytes]]:
        """The messages from a number on, as far as they are kept."""
        return [m for m in self.ring if m[0] >= start]

    def depth(self, path: Path) -> int:
        """Leading blocks of a path that it holds."""
        depth = 0
        while depth < len(path) and path[: depth + 1] in self.held:
            depth += 1
        return depth
