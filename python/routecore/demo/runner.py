"""Runs one fleet, one gateway, and every strategy in turn over the same traffic."""

import asyncio
import contextlib
import functools
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

import aiohttp

from routecore import ROUTERS, EndpointInfo
from routecore.demo import cache_events
from routecore.demo.block_log import BlockLog
from routecore.demo.engine import Engine
from routecore.demo.envoy import BehindEnvoy, behind_envoy
from routecore.demo.gateway import Gateway, last_usage
from routecore.demo.gateways import Gateways, installed
from routecore.demo.scheduler import Scheduler
from routecore.demo.serving import serve, serving
from routecore.demo.traffic import Job
from routecore.demo.trouble import Afflictions, Trouble
from routecore.endpoints.ranks import with_ranks
from routecore.routers.cache_router import CacheRouter

_DRAIN_SECONDS = 2.0  # of the wall clock, for requests still open when arrivals end
_SAMPLE_SECONDS = 0.05


@dataclass
class Result:
    """What one strategy did; times in simulated seconds, decisions in real microseconds."""

    strategy: str
    requests: int = 0
    errors: int = 0
    unfinished: int = 0
    ttft: list[float] = field(default_factory=list)
    decisions_us: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    held_tokens: int | None = None  # as KV events said before each request; None without them
    cache_by: str | None = None  # how it knows the caches: "events", "history", or not at all
    max_load: float = 0.0
    mean_load: float = 0.0
    running: bool = False
    interrupted: bool = False  # by Ctrl-C: its figures are of a part of the traffic
    out: dict[int, str] = field(default_factory=dict)  # engines that are left alone now, and why
    ejections: int = 0  # how often an engine was left alone
    news: list[str] = field(default_factory=list)  # what broke, and when

    def as_dict(self) -> dict[str, Any]:
        """The figures of the final table; None where nothing was measured."""
        return {
            "strategy": self.strategy,
            "requests": self.requests,
            "errors": self.errors,
            "unfinished": self.unfinished,
            "interrupted": self.interrupted,
            "ejections": self.ejections,
            "out": {str(engine): reason for engine, reason in self.out.items()},
            "news": self.news,
            "ttft_p50_ms": _scaled(quantile(self.ttft, 0.5), 1e3),
            "ttft_p99_ms": _scaled(quantile(self.ttft, 0.99), 1e3),
            "token_hit_rate": self.cached_tokens / self.prompt_tokens
            if self.prompt_tokens
            else None,
            "event_hit_rate": self.held_tokens / self.prompt_tokens
            if self.held_tokens is not None and self.prompt_tokens
            else None,
            "cache_by": self.cache_by,
            "max_mean_load": self.max_load / self.mean_load if self.mean_load else None,
            "decision_p50_us": quantile(self.decisions_us, 0.5),
            "decision_p99_us": quantile(self.decisions_us, 0.99),
        }


def quantile(values: list[float], share: float) -> float | None:
    """The value below which that share lies (nearest rank); None of nothing."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


async def run(
    jobs: list[Job],
    strategies: list[str],
    *,
    endpoints: int = 8,
    seconds: float = 7.0,
    speed: float = 3.0,
    seed: int = 0,
    kv_tokens: int = 131_072,
    kv_events: bool = False,
    hold: bool = False,
    ranks: int = 1,
    envoy: bool = False,
    routers: int = 1,
    replicas: str | None = None,
    troubles: Sequence[Trouble] = (),
    on_change: Callable[[list[Result]], None] = lambda _results: None,
) -> list[Result]:
    """Send the jobs through each strategy; Ctrl-C ends early with what was measured.

    Args:
        jobs: The traffic, the same for each strategy.
        strategies: Keys of `ROUTERS`.
        endpoints: Engines to start.
        seconds: Wall-clock seconds of arrivals per strategy.
        speed: Simulated seconds per wall-clock second.
        seed: Of the strategies.
        kv_tokens: KV cache of an engine.
        kv_events: Let the engines publish KV events; cache strategies then go by them, and what
            they said is compared with each hit.
        hold: Let requests wait at the gateway until there is room for them.
        ranks: Data-parallel ranks of an engine; with several, each is an endpoint of its own.
        envoy: Put a real Envoy that asks our picker before the engines, instead of a gateway.
        routers: Gateways before the same engines; requests go to each in turn.
        replicas: What carries load between them; None: each knows its own requests only.
        troubles: What breaks, for each strategy anew.
        on_change: Called with the results so far, several times a second.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, stop.set)
    results: list[Result] = []
    try:
        async with contextlib.AsyncExitStack() as stack:
            publishers = (
                stack.enter_context(cache_events.publishers(endpoints * ranks)) if kv_events else []
            )
            logs: list[BlockLog | None] = [publisher.log() for publisher in publishers]
            logs = logs or [None] * (endpoints * ranks)
            made = [Scheduler(kv_tokens=kv_tokens, log=log) for log in logs]
            fleet = [
                Engine(speed=speed, scheduler=made[at], more=tuple(made[at + 1 : at + ranks]))
                for at in range(0, len(made), ranks)
            ]
            servers = [await stack.enter_async_context(serving(engine.app)) for engine in fleet]
            urls = [server.url for server in servers]
            names = urls if ranks == 1 else with_ranks(urls, ranks)
            infos = [EndpointInfo(url=name) for name in names]
            breaks = Afflictions(troubles, list(zip(fleet, servers, strict=True)), speed)
            session = await stack.enter_async_context(
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
            )
            gateways = [Gateway(infos, session, hold=hold) for _ in range(routers)]
            index = None
            if kv_events:
                index = stack.enter_context(cache_events.listening(infos, publishers))
                for gateway in gateways:
                    gateway.held = functools.partial(cache_events.held, index)
            own_urls = [await stack.enter_async_context(serve(gateway.app)) for gateway in gateways]
            for name in strategies:
                if stop.is_set():
                    break
                for engine in fleet:
                    engine.reset()
                result = Result(name, running=True, held_tokens=0 if kv_events else None)
                if issubclass(ROUTERS[name], CacheRouter):
                    result.cache_by = "events" if kv_events else "history"
                results.append(result)
                async with contextlib.AsyncExitStack() as own:
                    seen: Gateways | BehindEnvoy = Gateways(gateways)
                    if envoy:
                        asked = behind_envoy(infos, name, seed, hold, session)
                        seen = await own.enter_async_context(asked)
                    else:
                        own.enter_context(
                            installed(gateways, name, seed=seed, index=index, replicas=replicas)
                        )
                    where = [seen.url] if isinstance(seen, BehindEnvoy) else own_urls
                    drive = _Drive(session, where, seen, result, speed)
                    breaks.begin(drive.note)
                    try:
                        await drive.run(jobs, seconds, stop, lambda: on_change(results))
                    finally:
                        await breaks.end()
                result.running, result.interrupted = False, stop.is_set()
                on_change(results)
    finally:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.remove_signal_handler(signal.SIGINT)
    return results


class _Drive:
    """One strategy's share of the run."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        urls: Sequence[str],
        gateway: Gateways | BehindEnvoy,
        result: Result,
        speed: float,
    ) -> None:
        self._session, self._urls, self._gateway = session, cycle(urls), gateway
        self._result, self._speed = result, speed
        self._closing = False
        self._begin = time.perf_counter()

    def note(self, what: str) -> None:
        """Something broke, or is well again."""
        at = (time.perf_counter() - self._begin) * self._speed
        self._result.news.append(f"{at:.1f} s: {what}")

    async def run(
        self, jobs: list[Job], seconds: float, stop: asyncio.Event, changed: Callable[[], None]
    ) -> None:
        begin = self._begin = time.perf_counter()
        self._end = begin + seconds
        tasks = [asyncio.create_task(self._converse(job, begin)) for job in jobs]
        try:
            samples = 0
            while not stop.is_set() and time.perf_counter() < self._end + _DRAIN_SECONDS:
                if all(task.done() for task in tasks):
                    break
                await asyncio.sleep(_SAMPLE_SECONDS)
                self._sample()
                samples += 1
                if samples % 5 == 0:
                    changed()
        finally:
            self._closing = True
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            # The gateway must see clients leave before its monitor is replaced.
            await asyncio.sleep(0.05)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _sample(self) -> None:
        loads = self._gateway.in_flight.values()
        self._result.decisions_us = self._gateway.decisions_us
        self._see_health()
        if time.perf_counter() < self._end:
            self._result.max_load += max(loads)
            self._result.mean_load += sum(loads) / len(loads)

    def _see_health(self) -> None:
        monitor, result = self._gateway.monitor, self._result
        found = ((at, monitor.standing(e.url)) for at, e in enumerate(self._gateway.endpoints))
        now = {at: standing.reason for at, standing in found if standing and standing.until}
        for at in now.keys() - result.out.keys():
            self.note(f"{self._gateway.name(at)} is out ({now[at]})")
        for at in result.out.keys() - now.keys():
            self.note(f"{self._gateway.name(at)} is back")
        result.out, result.ejections = now, monitor.ejections

    async def _converse(self, job: Job, begin: float) -> None:
        await asyncio.sleep(max(0.0, begin + job.start / self._speed - time.perf_counter()))
        for body in job.bodies:
            if time.perf_counter() >= self._end:
                return
            await self._send(body, job.headers)
            await asyncio.sleep(job.delay / self._speed)

    async def _send(self, body: dict[str, Any], headers: dict[str, str]) -> None:
        result = self._result
        result.requests += 1
        path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
        start = time.perf_counter()
        first: float | None = None
        tail = b""
        try:
            async with self._session.post(
                next(self._urls) + path, json=body, headers=headers
            ) as answer:
                async for piece in answer.content.iter_any():
                    first = first or time.perf_counter()
                    tail = (tail + piece)[-2048:]
                if answer.status != 200 or first is None or b"[DONE]" not in tail:
                    result.errors += 1
                    return
        except (aiohttp.ClientError, TimeoutError):
            result.errors += 1
            return
        except asyncio.CancelledError:
            result.unfinished += 1
            raise
        result.ttft.append((first - start) * self._speed)
        if result.held_tokens is not None:
            result.held_tokens += int(answer.headers.get("x-kv-held", 0))
        used = last_usage(tail)
        result.prompt_tokens += used.get("prompt_tokens", 0)
        result.cached_tokens += used.get("prompt_tokens_details", {}).get("cached_tokens", 0)
