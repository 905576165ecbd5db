"""The obvious exact index: a block is its whole prefix, and every engine has a dictionary."""

from collections import Counter
from typing import Any

TIER = {None: 0, "GPU": 0, "CPU": 1, "DISK": 2}
FULL = ("full_attention", "mla_attention", "sink_full_attention")


class NaiveKV:
    """Events of any number of engines; each engine's hash stands for one prefix."""

    def __init__(self, block: int) -> None:
        self.block = block
        # (url, rank) → group → engine hash → (prefix, stores per tier)
        self.held: dict[tuple[str, int], dict[int, dict[int, tuple[Any, Counter[int]]]]] = {}
        self.kinds: dict[tuple[str, int, int], bool] = {}

    def apply(self, url: str, rank: int, event: dict[str, Any]) -> None:
        groups = self.held.setdefault((url, rank), {})
        if event["type"] == "AllBlocksCleared":
            for blocks in groups.values():
                blocks.clear()
            return
        group = event.get("group_idx") or 0
        if event["type"] == "BlockRemoved":
            blocks = groups.get(group, {})
            for hash_ in event["block_hashes"]:
                _, tiers = blocks.get(hash_, (None, Counter()))
                tier = TIER[event.get("medium")]
                if tiers[tier]:
                    tiers[tier] -= 1
                    if not any(tiers.values()):
                        del blocks[hash_]
            return
        kind = event.get("kv_cache_spec_kind")
        if kind is not None:
            self.kinds[url, rank, group] = kind in FULL
        if not self.kinds.get((url, rank, group), group == 0):
            return
        blocks = groups.setdefault(group, {})
        tier = TIER[event.get("medium")]
        tokens = event["token_ids"]
        if not tokens:
            for hash_ in event["block_hashes"]:
                if hash_ in blocks:
                    blocks[hash_][1][tier] += 1
            return
        parent = event["parent_block_hash"]
        if parent is None:
            prefix: Any = (event.get("lora_name"),)
        elif parent in blocks:
            prefix = blocks[parent][0]
        else:
            return
        extras = event.get("extra_keys") or [None] * len(event["block_hashes"])
        for i, hash_ in enumerate(event["block_hashes"]):
            own = tuple(tokens[i * self.block : (i + 1) * self.block])
            prefix = (*prefix, (own, repr(extras[i] or [])))
            known = blocks.get(hash_)
            tiers = known[1] if known and known[0] == prefix else Counter()
            tiers[tier] += 1
            blocks[hash_] = (prefix, tiers)

    def matched(
        self, tokens: list[int], url: str, lora: str | None = None, extras: Any = ()
    ) -> tuple[int, int, int]:
        """Tokens held: device; device or host; any."""
        usable = max(0, len(tokens) - 1) // self.block
        best = [0, 0, 0]
        for (known, _), groups in self.held.items():
            if known != url or not groups:
                continue
            for top in range(3):
                depths = []
                for blocks in groups.values():
                    have = {
                        p for p, tiers in blocks.values() if any(tiers[t] for t in range(top + 1))
                    }
                    prefix: Any = (lora,)
                    depth = 0
                    while depth < usable:
                        own = tuple(tokens[depth * self.block : (depth + 1) * self.block])
                        extra = extras[depth] if depth < len(extras) else None
                        prefix = (*prefix, (own, repr(extra or [])))
                        if prefix not in have:
                            break
                        depth += 1
                    depths.append(depth)
                best[top] = max(best[top], min(depths) * self.block)
        return best[0], best[1], best[2]
