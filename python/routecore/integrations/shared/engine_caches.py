"""What the engines behind a host hold, by their KV events, as endpoints come and go."""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import msgspec

from routecore.endpoints.ranks import rank_of
from routecore.errors import RouteError
from routecore.integrations.shared.log_throttle import LogThrottle
from routecore.integrations.shared.settings import Settings
from routecore.kv_events import KVIndex, KVSource, PromptTokens
from routecore.kv_events.source import of_rank
from routecore.process import watch

_LOOK_SECONDS = 1.0
_GONE_SECONDS = 600.0  # a cooldown or a failed health check is no reason to forget a cache
_MAX_ENDPOINTS = 1024  # each takes a few sockets

Addresses = Callable[[], Mapping[str, str]]
"""Endpoint, as routers know it → its HTTP address, of all endpoints that there are now."""

# A task's prompt in tokens, made in a thread before the choice.
_prepared: ContextVar[tuple[Any, Any] | None] = ContextVar("routecore_prompt", default=None)


class EngineCaches:
    """Keeps an index of the engines' caches; listens from the first request on.

    Nothing here waits in a request: sockets and tokenizer have threads.

    Args:
        settings: Where the engines publish, and the tokenizer.
        log: The host's logger.

    Raises:
        RouteError: An address, port or tokenizer cannot be used.
        ImportError: Names the extra that is missing.
    """

    def __init__(self, settings: Settings, log: logging.Logger) -> None:
        from routecore.kv_events import KVEventSubscriber

        self._settings, self._log = settings, log
        for port in (settings.kv_events_port, settings.kv_replay_port):
            if port is not None and not 0 < port < 65536:
                raise RouteError(f"KV events: expected a port from 1 to 65535, got {port}")
        for url in settings.kv_events:
            _source(settings, url, "")
        folder = settings.tokenizer
        self._tokens = PromptTokens() if folder is None else PromptTokens.from_model(folder)
        self.index: KVIndex = KVIndex()
        self._subscribe: Callable[..., Any] = KVEventSubscriber
        self._subscriber: Any = None
        self._seen: dict[str, float] = {}
        self._looked = float("-inf")
        self._logs = LogThrottle()
        self._closed = False
        self._after_fork()
        watch(self)

    def _at_exit(self) -> None:
        pass  # the executor ends its threads, and the subscriber its own

    def _after_fork(self) -> None:
        self._looking = threading.Lock()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="routecore-kv")

    def params(self) -> dict[str, Any]:
        """What a cache strategy takes to route by them."""
        return {"kv_index": self.index, "prompt_tokens": self.token_ids}

    async def prepare(self, body: Any) -> None:
        """Turn the prompt into tokens in a thread, for a choice that this task makes next."""
        if self._settings.tokenizer is None or self._closed:
            return
        if isinstance(body, dict):
            _prepared.set((body, await self._tokens.ids_in(self._threads, body)))

    def token_ids(self, body: dict[str, Any]) -> Any:
        """The prompt's tokens: those prepared, else made now; None if they cannot be known."""
        prepared = _prepared.get()
        if prepared is not None and prepared[0] is body:
            return prepared[1]
        return self._tokens.ids(body)

    def follow(self, addresses: Addresses) -> None:
        """Come into step with the endpoints, at most once a second; returns at once."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS or self._closed:
            return
        if self._looking.acquire(blocking=False):
            self._looked = now
            try:
                self._threads.submit(self._look, addresses, now)
            except RuntimeError:  # closed since
                self._looking.release()

    def close(self) -> None:
        """Listen no longer; returns at once, and a second call changes nothing."""
        if not self._closed:
            self._closed = True
            self._threads.submit(self._unsubscribe)
            self._threads.shutdown(wait=False)

    def _unsubscribe(self) -> None:
        if self._subscriber is not None:
            self._subscriber.close()

    def _look(self, addresses: Addresses, now: float) -> None:
        try:
            if self._subscriber is None:
                self._subscriber = self._subscribe(index=self.index)
                weakref.finalize(self, self._subscriber.close)
            if self._closed:
                return self._unsubscribe()
            for url, address in addresses().items():
                if url in self._seen or self._listen(url, address):
                    self._seen[url] = now
            gone = [url for url, last in self._seen.items() if now - last > _GONE_SECONDS]
            for url in gone:
                del self._seen[url]
                self._subscriber.remove(url)
        except Exception as error:  # the host's discovery, or the subscriber was closed
            self._say(f"{type(error).__name__}: {error}")
        finally:
            self._looking.release()

    def _listen(self, url: str, address: str) -> bool:
        try:
            source = _source(self._settings, url, address)
            if source is None:
                self._say(f"no event address for {url}")
            elif len(self._seen) >= _MAX_ENDPOINTS:
                self._say(f"{url} is one endpoint too many; at most {_MAX_ENDPOINTS} are heard")
            else:
                self._subscriber.add(source)
                return True
        except RouteError as error:
            self._say(str(error))
        return False

    def _say(self, what: str) -> None:
        if self._logs():
            self._log.warning(
                "routecore: KV events: %s; the strategy goes by what was sent there", what
            )


def engine_caches(settings: Settings, log: logging.Logger) -> EngineCaches | None:
    """The engines' caches if the settings ask for them and the strategy reads them.

    Says once, in one line, what is heard, or why nothing is.

    Raises:
        RouteError: A setting is wrong.
    """
    if not settings.kv_events and settings.kv_events_port is None:
        return None
    why: Any = None
    if "kv_index" in settings.accepts():
        try:
            made = EngineCaches(settings, log)
            log.info(
                "routecore: %s reads KV events, tokenizer %s", settings.strategy, settings.tokenizer
            )
            return made
        except ImportError as error:
            why = error
    log.warning(
        "routecore: %s routes without KV events: %s", settings.strategy, why or "it reads none"
    )
    return None


def _source(settings: Settings, url: str, address: str) -> KVSource | None:
    """Where the endpoint's engine publishes: as named, else by the port rule.

    For an endpoint that is a rank, what is said of its engine counts: its rank 0 publishes there.
    """
    engine, rank = rank_of(url)
    given, at = settings.kv_events.get(url), 0
    if given is None:
        given, at = settings.kv_events.get(engine), rank or 0
    if given is None:
        if settings.kv_events_port is None:
            return None
        address = rank_of(address).address
        host = urlsplit(address if "//" in address else f"//{address}").hostname
        if not host:
            return None
        host = f"[{host}]" if ":" in host else host
        given = f"tcp://{host}:{settings.kv_events_port}"
    named: dict[str, Any] = dict(given) if isinstance(given, dict) else {"address": given}
    unknown = named.keys() - KVSource.__dataclass_fields__.keys()
    if unknown:
        raise RouteError(f"kv_events[{url!r}]: unknown {', '.join(sorted(unknown))}")
    replay, events = settings.kv_replay_port, str(named.get("address"))
    if replay is not None and "replay" not in named and events.startswith("tcp://"):
        named["replay"] = f"{events.rpartition(':')[0]}:{replay}"
    if rank is not None:
        named["ranks"] = 1
        for name in ("address", "replay"):
            if isinstance(named.get(name), str):
                named[name] = of_rank(named[name], at)
    try:
        return msgspec.convert({**named, "url": url}, KVSource)
    except msgspec.ValidationError as error:
        raise RouteError(f"kv_events[{url!r}]: {error}") from None
