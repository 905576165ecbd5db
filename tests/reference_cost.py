"""The naive twin of each cache-aware strategy: a cost per URL, the least of which may win."""

import math
import sys
from collections.abc import Callable
from typing import Any

from reference import number
from reference_cache import Question


def prefix_cache(
    q: Question, min_match_tokens: float = 64, min_match_share: float = 0, load_factor: float = 1.25
) -> dict[str, float]:
    """The longest match among those within the load bound; too short a match is none."""
    load = {url: row.in_flight for url, row in q.rows.items()}
    cap = max(load_factor * (sum(load.values()) + 1) / len(load), min(load.values()) + 2)
    within = [url for url in load if load[url] <= cap]
    longest = max((q.rows[url].cached for url in within), default=0.0)
    if longest < max(min_match_tokens, min_match_share * q.tokens):
        longest = 0.0
    fine = [url for url in within if q.rows[url].cached >= longest]
    return {url: load[url] if url in fine else math.inf for url in load}


def cache_aware(
    q: Question, cache_threshold: float = 0.3, balance_abs: float = 64, balance_rel: float = 1.5
) -> dict[str, float]:
    """Least connections while uneven or nothing matches, else the longest match."""
    load = {url: row.in_flight for url, row in q.rows.items()}
    high, low = max(load.values()), min(load.values())
    longest = max(row.cached for row in q.rows.values())
    uneven = high - low > balance_abs and high > balance_rel * low
    if uneven or longest <= cache_threshold * q.tokens:
        return {url: float(x) for url, x in load.items()}
    return {url: x if q.rows[url].cached == longest else math.inf for url, x in load.items()}


def dynamo_cost(
    q: Question, prefill_weight: float = 1, overlap_credit: float = 1
) -> dict[str, float]:
    """Blocks to prefill plus blocks to keep."""
    block = max(1.0, q.block)

    def cost(url: str) -> float:
        row = q.rows[url]
        prefill = max(0.0, row.queued + q.tokens - overlap_credit * row.cached)
        return prefill_weight * prefill / block + (row.kv + q.added(url)) / block

    return {url: cost(url) for url in q.rows}


def llm_d(
    q: Question, prefix_weight: float = 3, queue_weight: float = 2, kv_weight: float = 2
) -> dict[str, float]:
    """Minus the weighted sum of three scores."""

    def reported(url: str, name: str) -> float | None:
        return number(getattr(q.stats.get(url), name, None))

    waits = {url: reported(url, "num_queuing_requests") for url in q.rows}
    wait = {url: q.rows[url].in_prefill if x is None else x for url, x in waits.items()}
    high, low = max(wait.values()), min(wait.values())

    def free(url: str) -> float:
        row, usage = q.rows[url], reported(url, "gpu_cache_usage_perc")
        if usage is None and row.reported is None:
            return 0.5
        if usage is None:
            usage = row.kv / row.reported if row.reported else 0.0
        return 1 - min(usage, 1.0)

    return {
        url: -(
            prefix_weight * q.rows[url].cached / max(1.0, q.tokens)
            + queue_weight * ((high - wait[url]) / (high - low) if high > low else 1.0)
            + kv_weight * free(url)
        )
        for url in q.rows
    }


def sticky_until_saturated(
    q: Question, threshold: float = 0.8, penalty_s: float = 18, tokens_per_s: float = 15_928
) -> dict[str, float]:
    """Only those that have most of the prompt, until their queue is too long."""
    block = max(1.0, q.block)
    full = math.floor((q.tokens - 1) / block) * block
    sticky = [url for url, row in q.rows.items() if full > 0 and row.cached >= threshold * full]
    others = [url for url in q.rows if url not in sticky]
    wait = {url: row.queued / tokens_per_s for url, row in q.rows.items()}
    stay = sticky and (
        not others
        or min(wait[url] for url in sticky) - min(wait[url] for url in others) <= penalty_s
    )
    return {
        url: row.queued + q.uncached(url) if not stay or url in sticky else math.inf
        for url, row in q.rows.items()
    }


def prefill_ms(
    engine: Any, slower: float, tokens: float, uncached: float, decoding: int = 0
) -> float:
    """What the learned engine takes to prefill the last `uncached` of `tokens`."""
    _, per_token, per_pair, beside = engine[0]
    base = beside if decoding else idle_ms(engine)
    return float(slower * (base + per_token * uncached + per_pair * pairs(tokens, uncached)))


def idle_ms(engine: Any) -> float:
    """Any prefill on an idle engine; never more than where a step has to be waited for."""
    (alone, _, _, beside), (step_ms, request_ms, _) = engine[:2]
    return float(min(alone, beside + 1.5 * (step_ms + request_ms)))


def pairs(tokens: float, uncached: float) -> float:
    """Query-key pairs of that."""
    return uncached * max(0.0, tokens - uncached / 2)


def queued_ms(q: Question, url: str) -> float:
    """What prefilling all that waits there should take."""
    row, (_, per_token, per_pair, beside) = q.rows[url], q.engine[0]
    base = (beside if row.in_decoding else idle_ms(q.engine)) if row.queued else 0.0
    queued: float = base + per_token * row.queued + per_pair * row.queued_pairs
    return q.slower[url][0] * queued


def expected_latency(
    q: Question,
    decode_weight: float = 0.05,
    max_num_seqs: float = 256,
    uncached: Callable[[str], float] | None = None,
) -> dict[str, float]:
    """The growth of everybody's latency, in milliseconds, if so much of the prompt is uncached."""
    _, (step_ms, request_ms, context_ms), output, (_, rate), reuse, sequences = q.engine
    mean = mean_sent(q)
    known = min(row.caution for row in q.rows.values()) <= 1.1
    n, requests = len(q.rows), sum(row.in_flight for row in q.rows.values())
    used = sum(row.kv for row in q.rows.values()) + requests * output / 2
    tight = (used / sum(row.reported or q.kv_tokens for row in q.rows.values()) - 0.9) / 0.1
    scarce = 4 * min(max(tight, 0.0), 1.0) * (requests / n + 1)

    def cost(url: str) -> float:
        row, new = q.rows[url], (uncached or q.uncached)(url)
        _, slow_step, _, requests = q.slower[url]

        def step(requests: float, context: float) -> float:
            return slow_step * (step_ms + request_ms * requests + context_ms * context)

        stay = output * step(row.in_flight + 1, row.context + q.tokens + row.in_flight * output / 2)
        more = decode_weight * output * slow_step * (request_ms + context_ms * q.tokens)
        beside = rate * requests * output * step(row.in_flight, row.context) / 1e3
        now = step(row.in_decoding, row.context) if row.in_decoding else 0.0
        kept = row.kv + row.in_flight * output / 2 + q.added(url)
        full = max(
            kept / (row.reported or q.kv_tokens), (row.in_flight + 1) / max(max_num_seqs, sequences)
        )
        bend = min(max(full - 0.9, 0.0), 0.2)
        over = max(full - 1.1, 0.0) + bend * bend / 0.4
        return (
            compute(q, url, new, decode_weight, mean)
            + (reuse * new / q.tokens * beside * more if q.tokens >= 1 else 0)
            + (row.caution if known else 1) * queued_ms(q, url)
            + 1.5 * now
            + decode_weight * stay
            + row.in_flight * more
            + 3 * stay * over / (over + 0.3)
            + stay * scarce * q.added(url) / (row.reported or q.kv_tokens)
        )

    return {url: cost(url) for url in q.rows}


def mean_sent(q: Question) -> float:
    """Prefill sent to each on average."""
    return sum(other[2] for other in q.slower.values()) / len(q.slower)


def compute(q: Question, url: str, new: float, decode_weight: float, mean: float) -> float:
    """A prefill and whom it delays: those who come later, those who decode."""
    share = q.engine[3][0] * max(q.slower[url][2], mean) / 1e3
    decoding = q.rows[url].in_decoding
    prefill = prefill_ms(q.engine, q.slower[url][0], q.tokens, new, decoding)
    # Those who come later find others there.
    busy = min(prefill_ms(q.engine, q.slower[url][0], q.tokens, new, other) for other in (0, 1))
    return prefill * (1 + decode_weight * decoding / 2) + busy * 4 * (share**1.5 + 2 * share**6)


class Copies:
    """What `expected_latency` remembers: what further holders would have saved, in their prices."""

    def __init__(self) -> None:
        self.paid: dict[Any, tuple[float, int]] = {}
        self.requests = self.made = 0

    def may_win(
        self, q: Question, cost: dict[str, float], decode_weight: float = 0.05, **knobs: float
    ) -> list[str]:
        """The request counts."""
        self.requests += 1
        first = least(cost)
        fewest = min(q.uncached(url) for url in q.rows)
        held = expected_latency(q, decode_weight, uncached=lambda _: fewest, **knobs)
        ideal = min(held, key=lambda url: held[url])
        stays = {q.uncached(url) <= fewest for url in first}
        if q.uncached(ideal) <= fewest or False in stays:
            return first  # it is there already, or may be made without
        key = q.chain[round((q.tokens - fewest) / q.block) - 1], ideal
        paid, at = self.paid.get(key, (0.0, 0))
        paid *= math.exp((at - self.requests) / (64 * len(q.rows)))
        price, free = (
            compute(q, ideal, new, decode_weight, mean_sent(q))
            for new in (q.uncached(ideal), fewest)
        )
        paid += (cost[first[0]] - held[ideal]) / max(price - free, sys.float_info.min)
        pays = paid >= 3
        self.paid[key] = (0.0 if pays else paid, self.requests)
        self.made += pays
        return [ideal] if pays else first


class LMetric:
    """Tokens to prefill times requests beside them, with a guard for hot classes."""

    def __init__(self) -> None:
        self.recent: list[Any] = []
        self.streak: tuple[Any, int] = (None, 0)

    def costs(self, q: Question) -> dict[str, float]:
        """The product alone: what `explain` shows."""
        return {u: (r.queued + q.uncached(u)) * (r.in_flight + 1) for u, r in q.rows.items()}

    def may_win(self, q: Question) -> list[str] | None:
        """The request counts. None where a draw between holders and others decides what follows."""
        cost = self.costs(q)
        first = least(cost)
        if q.head is None:
            return first
        self.recent = [*self.recent[-999:], q.head]
        holders = [url for url, row in q.rows.items() if row.cached >= q.head_tokens]
        share = self.recent.count(q.head) / len(self.recent)
        hot = 0 < len(holders) < len(q.rows) and share > len(holders) / len(q.rows)
        if hot and 0 < len(set(first) & set(holders)) < len(first):
            return None
        if not hot or first[0] not in holders:
            if self.streak[0] == q.head:
                self.streak = (None, 0)
            return first
        self.streak = (q.head, self.streak[1] + 1 if self.streak[0] == q.head else 1)
        if self.streak[1] <= 2 * len(holders):
            return first
        return least({url: math.inf if url in holders else x for url, x in cost.items()})


COSTS: dict[str, Callable[..., dict[str, float]]] = {
    "prefix_cache": prefix_cache,
    "expected_latency": expected_latency,
    "cache_aware": cache_aware,
    "dynamo_cost": dynamo_cost,
    "lmetric": LMetric().costs,
    "llm_d": llm_d,
    "sticky_until_saturated": sticky_until_saturated,
}


def least(cost: dict[str, float]) -> list[str]:
    """All whose cost is the least, sums rounded alike."""
    lowest = min(cost.values())
    return [url for url, x in cost.items() if x <= lowest + 3e-9 * max(1.0, abs(lowest))]
