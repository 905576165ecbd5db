"""What the records of shadow mode say: sums of both sides, and a verdict in words."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import msgspec

from routecore.integrations.shared.shadow.log import records

FEWEST = 200
"""Requests below which a report gives no advice."""
# What counts as a difference: hits in share of prompt tokens, latency as a factor, and how much
# larger than the host's the share of our busiest endpoint may be.
_HITS, _LATENCY, _BUSIER = 0.02, 0.03, 1.25


class Summary(msgspec.Struct):
    """What would have differed; shares are 0 to 1, None where nothing is known.

    Attributes:
        requests: Records read.
        skipped: Lines that are no record.
        strategy: Ours.
        agreement: Share of requests that we would have sent where the host sent them.
        hit_rate: `host` and `ours`: predicted hit tokens per prompt token.
        busiest_share: `host` and `ours`: share of requests at the endpoint with the most.
        latency_ms: `host` and `ours`: mean latency that our strategy expected.
        took_ms: Mean time that requests really took, at the host's choices.
        endpoints: How many different ones were chosen, by either.
        verdict: What follows, in words.
    """

    requests: int
    skipped: int
    strategy: str
    agreement: float
    hit_rate: dict[str, float | None]
    busiest_share: dict[str, float]
    latency_ms: dict[str, float | None]
    took_ms: float | None = None
    endpoints: int = 0
    verdict: str = ""


def summarise(paths: Iterable[Path]) -> Summary:
    """Sum up the records of some files.

    Raises:
        ValueError: There is no record in them.
    """
    skipped = requests = agreed = 0
    strategy = ""
    prompt = 0.0
    hits = {"host": 0.0, "ours": 0.0}
    urls: dict[str, Counter[str]] = {"host": Counter(), "ours": Counter()}
    latency: dict[str, list[float]] = {"host": [], "ours": []}
    took: list[float] = []
    for record in records(paths):
        if record is None:
            skipped += 1
            continue
        requests += 1
        strategy = record.strategy
        agreed += record.host == record.ours
        prompt += record.prompt_tokens
        hits["host"] += record.host_hit_tokens
        hits["ours"] += record.our_hit_tokens
        urls["host"][record.host] += 1
        urls["ours"][record.ours] += 1
        if record.host_latency_ms is not None and record.our_latency_ms is not None:
            latency["host"].append(record.host_latency_ms)
            latency["ours"].append(record.our_latency_ms)
        if record.took_ms is not None:
            took.append(record.took_ms)
    if not requests:
        raise ValueError("no record of shadow mode in it")
    found = Summary(
        requests=requests,
        skipped=skipped,
        strategy=strategy,
        agreement=agreed / requests,
        hit_rate={who: hits[who] / prompt if prompt else None for who in hits},
        busiest_share={who: max(urls[who].values()) / requests for who in urls},
        latency_ms={who: _mean(times) for who, times in latency.items()},
        took_ms=_mean(took),
        endpoints=len(urls["host"] | urls["ours"]),
    )
    found.verdict = verdict(found)
    return found


def verdict(summary: Summary) -> str:
    """What follows from the sums, in a few sentences."""
    if summary.requests < FEWEST:
        return f"Too few requests to tell by; record {FEWEST} or more."
    if summary.endpoints < 2:
        return "There is one endpoint: nothing to choose."
    known = [_hits(summary), _latency(summary)]
    better = [said for gain, said in known if gain > 0]
    worse = [said for gain, said in known if gain < 0]
    host, ours = summary.busiest_share["host"], summary.busiest_share["ours"]
    uneven = (
        f"its busiest endpoint gets {ours:.0%} of the requests, instead of {host:.0%}"
        if ours > _BUSIER * host
        else ""
    )
    name = summary.strategy
    if better and not worse:
        said = f"{name} is better here: {' and '.join(better)}."
        if uneven:
            said += f" The price: {uneven}; watch that endpoint's queue when you switch it on."
        return said
    if worse and not better:
        return f"{name} is worse here: {' and '.join(worse)}. Try another strategy."
    if better and worse:
        return (
            f"{name} gains and loses: {' and '.join(better)}, but {' and '.join(worse)}. "
            "Replay these records with other strategies before you decide."
        )
    if summary.agreement > 0.95:
        return f"{name} chooses as the host does: nothing would change."
    if uneven:
        return f"{name} is no better here, and {uneven}. Stay with what you have."
    if all(side is None for side in (summary.hit_rate["host"], summary.latency_ms["host"])):
        return (
            f"{name} spreads requests as evenly as the host (busiest endpoint {ours:.0%}, the "
            f"host's {host:.0%}); prompts were not seen, so nothing is known of caches."
        )
    return f"{name} makes no difference here: neither hits nor expected latency change."


def _hits(summary: Summary) -> tuple[int, str]:
    """Whether more prompt tokens would be found in caches (1), fewer (-1) or as many, in words."""
    host, ours = summary.hit_rate["host"], summary.hit_rate["ours"]
    if host is None or ours is None or abs(ours - host) < _HITS:
        return 0, ""
    said = f"{ours:.0%} of prompt tokens found in a cache, instead of {host:.0%}"
    return (1 if ours > host else -1), said


def _latency(summary: Summary) -> tuple[int, str]:
    """The same of the latency that the strategy expects."""
    host, ours = summary.latency_ms["host"], summary.latency_ms["ours"]
    if not host or ours is None or abs(ours / host - 1) < _LATENCY:
        return 0, ""
    said = f"an expected latency of {_ms(ours)}, instead of {_ms(host)}"
    return (1 if ours < host else -1), said


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
