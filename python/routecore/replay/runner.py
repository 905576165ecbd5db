"""One replay: a trace, a fleet of modelled engines, and whoever chooses among them."""

import inspect
import re
import time
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from routecore import ROUTERS, _core
from routecore.errors import RouteError, unknown
from routecore.hold import HoldLimits
from routecore.replay.adapter import PythonGateway, url_of
from routecore.replay.columns import Trace
from routecore.replay.result import Decision, PerRequest, ReplayResult, Settings, Spread
from routecore.replay.share import Share
from routecore.replay.traces import read_trace
from routecore.replay.workloads import WORKLOADS, generate

PROFILES: dict[str, int] = dict(_core.PROFILES)
"""Engine profile → tokens its KV cache holds."""

_EVENT = re.compile(r"(fail|join|sick)@(\d+(?:\.\d+)?)(ms|s|m):(\d+)(?::(\d+(?:\.\d+)?)(ms|s|m))?")
_UNITS = {"ms": 1.0, "s": 1e3, "m": 6e4}


def parse_event(text: str) -> list[tuple[float, int, str]]:
    """Take "fail@120s:3", "join@5m:2" or "sick@120s:3:30s" apart.

    Returns:
        What happens: simulated ms, endpoint, and one of fail, join, sick, well.

    Raises:
        RouteError: The text is no event.
    """
    match = _EVENT.fullmatch(text)
    if not match or (match[1] == "sick") != (match[5] is not None):
        raise RouteError(
            f"event {text!r}: expected fail@TIME:ENDPOINT, join@TIME:ENDPOINT or "
            "sick@TIME:ENDPOINT:TIME, as fail@120s:3 or sick@120s:3:30s"
        )
    kind, number, unit, endpoint, lasts, lasts_unit = match.groups()
    time, at = float(number) * _UNITS[unit], int(endpoint)
    if kind != "sick":
        return [(time, at, kind)]
    return [(time, at, "sick"), (time + float(lasts) * _UNITS[lasts_unit], at, "well")]


def _compiled_params(strategy: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """What the strategy's Python class hands to the compiled core, its defaults included."""
    cls = ROUTERS.get(strategy)
    if cls is None:
        raise RouteError(f"strategy: unknown {unknown(strategy, ROUTERS)}")
    handed: dict[str, Any] = {}

    if "kv_tokens" in params:
        raise RouteError("kv_tokens: the engines of a replay tell their size; set kv_blocks")

    def build(self: object, seed: int | None, **given: Any) -> None:
        given.pop("kv_tokens", None)
        handed.update({name: value for name, value in given.items() if value is not None})

    names = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    for name in params:
        if name not in names or name == "seed":
            valid = [other for other in names if other not in ("seed", "kv_tokens")]
            of_run = "; the replay has one for all" if name == "seed" else ""
            raise RouteError(f"{strategy} takes no parameter {unknown(name, valid)}{of_run}")
    # Without the metaclass's call: this object must not become the class's one instance.
    capture: Any = types.new_class(cls.__name__, (cls,), {}, lambda ns: ns.update(_build=build))
    capture.__init__(object.__new__(capture), **params)
    return handed


def _weights(params: dict[str, Any], endpoints: int) -> list[float]:
    """Takes `endpoint_weights` (endpoint number or URL → weight) out of the parameters."""
    given = params.pop("endpoint_weights", {})
    names = {name: at for at in range(endpoints) for name in (str(at), url_of(at))}
    weights = [1.0] * endpoints if given else []
    for name, weight in given.items():
        at = names.get(str(name))
        if at is None or not 0 < weight < float("inf"):
            raise RouteError(
                f"endpoint_weights: expected a number above 0 for an endpoint from 0 to "
                f"{endpoints - 1}, got {weight} for {name!r}"
            )
        weights[at] = float(weight)
    return weights


def _chooser(
    strategy: Any, params: Mapping[str, Any], trace: Trace, endpoints: int, seeds: list[int]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Its name, its parameters, and the keyword that hands it to the compiled replay."""
    if isinstance(strategy, str):
        full = _compiled_params(strategy, params)
        rest = dict(full)
        weights = _weights(rest, endpoints)
        return strategy, full, {"strategy": (strategy, rest, weights, seeds)}
    if params:
        raise RouteError("params: only a strategy given by its word takes parameters here")
    if isinstance(strategy, type):
        strategy = strategy()
    if callable(getattr(strategy, "route_request", None)):
        if len(seeds) > 1:
            raise RouteError("routers: a Python router can only be replayed as one")
        gateway = PythonGateway(strategy, trace, endpoints)
        return type(strategy).__name__, {}, {"gateway": gateway}
    if not isinstance(strategy, Sequence | np.ndarray):
        raise RouteError(
            f"strategy: expected a word, a router with route_request, or endpoint numbers, "
            f"got {type(strategy).__name__}"
        )
    assigned = np.asarray(strategy)
    whole = assigned.shape == (len(trace),) and assigned.dtype.kind in "iu"
    if not whole or assigned.min() < 0 or assigned.max() >= endpoints:
        raise RouteError(
            f"assignments: expected {len(trace)} endpoint numbers from 0 to {endpoints - 1}"
        )
    return "assigned", {}, {"assigned": assigned.astype(np.uint32)}


def run(
    trace: Trace | str | Path,
    *,
    strategy: Any = "round_robin",
    label: str | None = None,
    params: Mapping[str, Any] | None = None,
    endpoints: int = 8,
    speedup: float = 1.0,
    engine: str = "dynamo-polynomial",
    block_size: int = 64,
    kv_blocks: int | None = None,
    token_budget: int = 8192,
    max_sequences: int = 256,
    speeds: Sequence[float] | None = None,
    routers: int = 1,
    share: Share | None = None,
    seed: int = 0,
    jitter_ms: float = 0.0,
    stats_period_ms: float = 1000.0,
    stats_delay_ms: float = 0.0,
    kv_event_delay_ms: float | None = None,
    events: Sequence[str] = (),
    hold: bool | HoldLimits = False,
    decisions: int = 0,
    progress: Callable[[int], object] | None = None,
) -> ReplayResult:
    """Replay a trace.

    Args:
        trace: Requests, a file of them, or the name of a generated workload.
        strategy: The word of a compiled strategy; a `RoutingInterface` of your own (slower), as
            object or class; or one endpoint number a request.
        label: What results call the strategy; its word or class if left out.
        params: Parameters of a compiled strategy.
        endpoints: Engines in the fleet.
        speedup: Divides arrival times and delays, not engine times.
        engine: Profile of step times; one of `PROFILES`.
        block_size: Tokens of an engine's KV block; a divisor or a multiple of the trace's block.
        kv_blocks: KV blocks of an engine; as the profile has if left out.
        token_budget: Tokens an engine step computes at most.
        max_sequences: Requests an engine runs at once at most.
        speeds: A factor for each endpoint; 2 is twice as fast.
        routers: Routers side by side, which know nothing of each other unless they share.
        share: How often they tell each other what they have in flight; None for never.
        seed: Of every draw: ties, jitter, which router.
        jitter_ms: Moves each independent arrival by up to so much, in the trace's time.
        stats_period_ms: Between two scrapes of engine stats; 0 for never.
        stats_delay_ms: From a scrape until routers see it.
        kv_event_delay_ms: From a change of an engine's cache until routers hear of it: compiled
            cache strategies then go by KV events. None: by what they sent where.
        events: Endpoints that die ("fail@120s:3", in simulated time), join ("join@…"), or answer
            every new request with an error for a while ("sick@120s:3:30s").
        hold: Requests wait at the router until the endpoint chosen for them has room in its KV
            cache, or the bounds of that; compiled strategies only. With `sessions` set, whatever it
            says, it is the sessions of the trace that are let in.
        decisions: Keep about so many decisions of a compiled strategy, spread over the requests,
            with what each endpoint scored.
        progress: Called now and then with the number of requests routed so far.

    Raises:
        RouteError: Settings that cannot be replayed; names the one and what it should be.
        Exception: Whatever a router of your own raises.
    """
    if isinstance(trace, str) and trace in WORKLOADS and not Path(trace).exists():
        trace = generate(trace, seed=seed)
    elif not isinstance(trace, Trace):
        trace = read_trace(trace)
    if engine not in PROFILES:
        raise RouteError(f"engine: unknown {unknown(engine, PROFILES)}")
    for name, value, least, most in (
        ("endpoints", endpoints, 1, 65_536),
        ("block size", block_size, 1, 1 << 20),
        ("kv blocks", 1 if kv_blocks is None else kv_blocks, 1, 1 << 30),
        ("token budget", token_budget, 1, 1 << 30),
        ("sequences", max_sequences, 1, 1 << 20),
        ("routers", routers, 1, 4096),
        ("seed", seed, 0, 2**63 - 1),
        ("decisions", decisions, 0, 1 << 20),
    ):
        if not least <= value <= most:
            raise RouteError(f"{name}: expected from {least} to {most}, got {value}")
    if speeds is None:
        speeds = [1.0] * endpoints
    if len(speeds) != endpoints:
        raise RouteError(
            f"speeds: expected one for each of {endpoints} endpoints, got {len(speeds)}"
        )
    blocks = max(1, PROFILES[engine] // block_size) if kv_blocks is None else kv_blocks
    seeds = [seed + (at << 32) for at in range(routers)]
    name, parameters, chooser = _chooser(strategy, params or {}, trace, endpoints, seeds)
    if hold is not False and "strategy" not in chooser:
        raise RouteError("hold: only a strategy given by its word can let requests wait")
    begun = time.perf_counter()
    found = _core.replay(
        trace.core,
        [(engine, block_size, blocks, token_budget, max_sequences, float(s)) for s in speeds],
        **chooser,
        speedup=speedup,
        jitter=jitter_ms,
        seed=seed,
        stats_period=stats_period_ms,
        stats_delay=stats_delay_ms,
        kv_event_delay=kv_event_delay_ms,
        changes=[change for event in events for change in parse_event(event)],
        hold=_limits(hold),
        decisions=decisions,
        share=None if share is None else (share.every_ms, share.delay_ms, share.loss),
        progress=progress,
    )
    found["decisions"] = tuple(map(Decision.of, found["decisions"]))
    wall = time.perf_counter() - begun
    arrays = _arrays(trace, found)
    spread, flips = arrays.session_spread()
    settings = Settings(
        trace=trace.name,
        strategy=label or name,
        parameters=parameters,
        seed=seed,
        endpoints=endpoints,
        speedup=speedup,
        engine=engine,
        block_size=block_size,
        kv_blocks=blocks,
        routers=routers,
        share=None if share is None else str(share),
        kv_event_delay_ms=kv_event_delay_ms,
        hold=hold is not False,
    )
    waits = arrays.wait_ms[np.isfinite(arrays.wait_ms)]
    marks = np.percentile(waits, (50, 90, 99)) if len(waits) else (0.0, 0.0, 0.0)
    mean = float(waits.mean()) if len(waits) else 0.0
    found["wait_ms"] = Spread(mean, *(float(mark) for mark in marks))
    for times in ("ttft_ms", "tpot_ms", "e2e_ms"):
        found[times] = Spread(*found[times])
    return ReplayResult(
        settings=settings,
        per_request=arrays,
        wall_s=wall,
        endpoints_per_session=spread,
        flips_per_session=flips,
        **found,
    )


def _limits(hold: bool | HoldLimits) -> dict[str, float] | None:
    """Bounds by their names; None for no hold at all."""
    if isinstance(hold, bool):
        return {} if hold else None
    given = msgspec.structs.asdict(hold)
    given["sessions"] = given["sessions"] is not None
    return {name: float(value) for name, value in given.items() if value is not None}


def _arrays(trace: Trace, found: dict[str, Any]) -> PerRequest:
    """Takes the packed columns out of what the compiled replay returned."""
    inputs, outputs, sessions = trace.core.columns()
    endpoint = np.frombuffer(found.pop("engine"), dtype=np.uint32).view(np.int32)

    def floats(name: str) -> Any:
        return np.frombuffer(found.pop(name), dtype=np.float64)

    return PerRequest(
        endpoint=endpoint.astype(np.int64),
        arrival_ms=floats("arrival"),
        dispatch_ms=floats("dispatch"),
        admitted_ms=floats("admitted"),
        turned_away_ms=floats("turned_away"),
        first_token_ms=floats("first_token"),
        end_ms=floats("end"),
        cached_tokens=np.frombuffer(found.pop("cached"), dtype=np.uint32).astype(np.int64),
        input_tokens=np.frombuffer(inputs, dtype=np.uint32).astype(np.int64),
        output_tokens=np.frombuffer(outputs, dtype=np.uint32).astype(np.int64),
        session=np.frombuffer(sessions, dtype=np.int64),
    )
