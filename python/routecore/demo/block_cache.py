"""The paged prefix cache of a simulated engine."""

from collections import OrderedDict

from routecore.demo.block_log import BlockLog


class BlockCache:
    """KV blocks: shared while in use, evicted least recently freed first afterwards."""

    def __init__(self, blocks: int, log: BlockLog | None = None) -> None:
        self.total = blocks
        self._log = log
        self.active: dict[int, int] = {}
        self.free: OrderedDict[int, None] = OrderedDict()

    def match(self, keys: list[int], limit: int) -> int:
        """Length of the longest cached run from the start, at most `limit` blocks."""
        run = 0
        while run < min(limit, len(keys)) and (keys[run] in self.active or keys[run] in self.free):
            run += 1
        return run

    def take(self, key: int) -> bool:
        """Use a block, evicting a free one if need be; False if all are in use."""
        if key in self.active:
            self.active[key] += 1
            return True
        if key in self.free:
            del self.free[key]
        elif len(self.active) >= self.total:
            return False
        elif len(self.active) + len(self.free) >= self.total:
            gone, _ = self.free.popitem(last=False)
            if self._log is not None:
                self._log.evicted(gone)
        self.active[key] = 1
        return True

    def release(self, keys: list[int]) -> None:
        """Give up the blocks of one request; its tail will be evicted before its head."""
        for key in reversed(keys):
            self.active[key] -= 1
            if not self.active[key]:
                del self.active[key]
                self.free[key] = None
