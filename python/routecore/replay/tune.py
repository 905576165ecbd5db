"""Search of a strategy's parameters: on the first half of a trace, judged on the second."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from routecore import ROUTERS
from routecore.errors import RouteError, unknown
from routecore.replay.columns import Trace
from routecore.replay.differences import Difference, blend, paired
from routecore.replay.result import ReplayResult, without_nan
from routecore.replay.runner import run
from routecore.routers.ranges import RANGES, Choices, Range

OBJECTIVES = ("blend", "ttft", "e2e", "goodput")
"""What is made small: the geometric mean of mean TTFT and mean E2E, either of them, or the share
of requests that are not served within the goodput target."""

TRIALS = 40
"""Sets of parameters that are tried by default."""

Search = dict[str, Range | Choices]


class Figures(msgspec.Struct, frozen=True):
    """What a part of a trace gave: means over its requests, a share of them for `goodput`."""

    ttft_ms: float
    e2e_ms: float
    goodput: float
    token_hit_rate: float
    served: float

    def cost(self, objective: str) -> float:
        """What `objective` makes small; infinite where nothing was served.

        Requests that were lost have no latency, so that of the others is divided by the share
        that was served: to lose the slow ones must not pay.
        """
        if objective == "goodput":
            return 1.0 - self.goodput
        of = {"blend": blend(self.ttft_ms, self.e2e_ms), "ttft": self.ttft_ms, "e2e": self.e2e_ms}
        return of[objective] / self.served if self.served > 0 else math.inf


def figures(result: ReplayResult, first: int = 0) -> Figures:
    """The figures of a replay, of the requests from number `first` on."""
    each = result.per_request
    ttft, e2e, tpot = each.ttft_ms[first:], each.e2e_ms[first:], each.tpot_ms[first:]
    inputs = each.input_tokens[first:]
    served = np.isfinite(e2e)
    if not served.any():
        return Figures(math.nan, math.nan, 0.0, 0.0, 0.0)
    # An output of one token has no TPOT to miss.
    good = served & (ttft <= 1000 + 0.0625 * inputs) & ~(tpot > 50)
    return Figures(
        ttft_ms=float(ttft[served].mean()),
        e2e_ms=float(e2e[served].mean()),
        goodput=float(good.mean()),
        token_hit_rate=float(each.cached_tokens[first:].sum() / inputs.sum()),
        served=float(served.mean()),
    )


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found.

    Attributes:
        parameters: The best ones found; "weights.in_flight" is a part of `weights`.
        tried: Sets of parameters that were replayed, the defaults among them.
        train: Cost against the defaults' on the first half, where they were chosen.
        held_out: Figure → tuned against default on the second half, paired by seed; "cost" is the
            objective's.
        default: Mean figures of the defaults on the second half.
        tuned: Mean figures of the parameters found, there.
    """

    strategy: str
    objective: str
    trace: str
    requests: int
    seeds: int
    tried: int
    parameters: dict[str, Any]
    train: Difference
    held_out: dict[str, Difference]
    default: Figures
    tuned: Figures

    @property
    def worth_it(self) -> bool:
        """Whether the gain on the held-out half is more than noise."""
        return self.held_out["cost"].exceeds_noise and self.held_out["cost"].ratio < 1

    def as_dict(self) -> dict[str, Any]:
        """The findings, ready for JSON."""
        found: dict[str, Any] = without_nan(msgspec.to_builtins(self))
        return {**found, "worth_it": self.worth_it}


def searched(strategy: str, fixed: Mapping[str, Any]) -> Search:
    """The parameters of a strategy that a search may set, and where; none of the `fixed` ones.

    Raises:
        RouteError: An unknown strategy, or nothing to search.
    """
    if strategy not in ROUTERS:
        raise RouteError(f"--tune: unknown strategy {strategy!r}; valid: {', '.join(ROUTERS)}")
    found = dict(_ranges(strategy, fixed))
    if not found:
        able = ", ".join(name for name in ROUTERS if dict(_ranges(name, {})))
        raise RouteError(f"--tune: {strategy} has no parameter left to tune; these have: {able}")
    return found


def _ranges(strategy: str, fixed: Mapping[str, Any]) -> Iterator[tuple[str, Range | Choices]]:
    for name in list(inspect.signature(ROUTERS[strategy].__init__).parameters)[1:]:
        values = RANGES[name]
        if values is None or name in fixed:
            continue
        if isinstance(values, dict):
            yield from ((f"{name}.{part}", inner) for part, inner in values.items())
        else:
            yield name, values


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a strategy takes them: "weights.in_flight" becomes a part of `weights`."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        outer, dot, inner = name.partition(".")
        if dot:
            found.setdefault(outer, {})[inner] = value
        else:
            found[name] = value
    return found


def tune(
    trace: Trace,
    strategy: str,
    *,
    objective: str = "blend",
    trials: int = TRIALS,
    seed: int = 0,
    seeds: int = 5,
    fixed: Mapping[str, Any] | None = None,
    progress: Callable[[], object] = lambda: None,
    **settings: Any,
) -> Tuned:
    """Search parameters on the first half of a trace, by its requests' order.

    The second half is replayed behind the first, with other seeds, and only its requests count.
    The same arguments give the same result.

    Args:
        trace: Requests, at least 4.
        strategy: The word of a compiled strategy.
        objective: One of `OBJECTIVES`.
        trials: Sets of parameters to try, the defaults being one.
        seed: Of the search and of every draw.
        seeds: Replays of each set; from 5 on gain is distinguished from noise.
        fixed: Parameters that are given and not searched.
        progress: Called after each of the `(trials + 2) * seeds` replays.
        settings: What `run` takes beside.

    Raises:
        RouteError: Nothing to search, or a setting out of range.
        ModuleNotFoundError: Without optuna (`routecore[tune]`).
    """
    if objective not in OBJECTIVES:
        raise RouteError(f"objective: unknown {unknown(objective, OBJECTIVES)}")
    if len(trace) < 4 or trials < 2:
        raise RouteError(
            f"--tune: expected at least 4 requests and 2 trials, got {len(trace)} and {trials}"
        )
    given = dict(fixed or {})
    space = searched(strategy, given)
    half = len(trace) // 2

    def replay(on: Trace, chosen: Mapping[str, Any], first_seed: int, first: int) -> list[Figures]:
        found = []
        for at in range(first_seed, first_seed + seeds):
            params = {**given, **nested(chosen)}
            result = run(on, strategy=strategy, params=params, seed=at, **settings)
            found.append(figures(result, first))
            progress()
        return found

    def costs(of: Sequence[Figures]) -> list[float]:
        return [each.cost(objective) for each in of]

    head = trace.head(half)
    tried = list(_search(space, lambda c: costs(replay(head, c, seed, 0)), trials, seed))
    best, theirs = min(tried, key=lambda each: math.fsum(each[1]))
    ours = replay(trace, best, seed + seeds, half)
    base = replay(trace, {}, seed + seeds, half)
    held_out = {"cost": paired(costs(ours), costs(base))}
    for name in Figures.__struct_fields__[:3]:
        held_out[name] = paired([getattr(f, name) for f in ours], [getattr(f, name) for f in base])
    return Tuned(
        strategy=strategy,
        objective=objective,
        trace=trace.name,
        requests=len(trace),
        seeds=seeds,
        tried=len(tried),
        parameters=best,
        train=paired(theirs, tried[0][1]),
        held_out=held_out,
        default=_mean(base),
        tuned=_mean(ours),
    )


def _mean(of: Sequence[Figures]) -> Figures:
    names = Figures.__struct_fields__
    return Figures(*(math.fsum(getattr(f, name) for f in of) / len(of) for name in names))


def _search(
    space: Search, cost: Callable[[Mapping[str, Any]], list[float]], trials: int, seed: int
) -> Iterator[tuple[dict[str, Any], list[float]]]:
    """Sets of parameters and what they cost by seed; the defaults, as nothing set, come first."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed % 2**32))
    finally:
        optuna.logging.set_verbosity(verbosity)
    yield {}, cost({})
    for _ in range(trials - 1):
        trial = study.ask()
        chosen: dict[str, Any] = {}
        for name, values in space.items():
            if isinstance(values, Range):
                value = trial.suggest_float(name, values.low, values.high, log=values.log)
                # As it will be printed, so that what is printed is what was measured.
                chosen[name] = float(f"{value:.4g}")
            else:
                chosen[name] = trial.suggest_categorical(name, values)
        found = cost(chosen)
        total = math.fsum(found)
        if math.isfinite(total):
            study.tell(trial, total)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        yield chosen, found


def lines(found: Tuned) -> Iterator[str]:
    """What was found, as text."""
    default, tuned = found.default, found.tuned
    yield (
        f"{found.strategy}: {found.tried} trials on the first half of {found.trace} "
        f"({found.requests} requests), objective {found.objective}, "
        f"{found.seeds} seed{'s' if found.seeds > 1 else ''}"
    )
    yield f"{'held-out half':16}{'default':>10}{'tuned':>10}   change"
    for name, label, scale, unit in (
        ("ttft_ms", "TTFT, mean", 1, "ms"),
        ("e2e_ms", "E2E, mean", 1, "ms"),
        ("goodput", "within target", 100, "%"),
        ("token_hit_rate", "hit rate", 100, "%"),
    ):
        old, new = scale * getattr(default, name), scale * getattr(tuned, name)
        pair = found.held_out.get(name)
        yield f"{label:16}{old:10.1f}{new:10.1f} {unit:2} {_change(pair) if pair else ''}".rstrip()
    cost = found.held_out["cost"]
    yield f"gain: {_change(cost)} held out, {_change(found.train)} where it was chosen"
    if found.worth_it:
        params = " ".join(f"--param {name}={value}" for name, value in found.parameters.items())
        yield f"more than noise; use it with: {params}"
    elif not found.parameters:
        yield "nothing that was tried is better than the defaults: keep them"
    else:
        yield "not more than noise: keep the defaults" + (
            "" if found.seeds >= 5 else " (less than 5 seeds cannot tell)"
        )


def _change(pair: Difference) -> str:
    if not math.isfinite(pair.ratio):
        return "–"
    half = f" ± {100 * pair.half_width:.1f}" if math.isfinite(pair.half_width) else ""
    return f"{100 * (pair.ratio - 1):+.1f}%{half}{'*' if pair.exceeds_noise else ''}"
