"""Stub of the compiled core. Use the classes of `routecore`; these are their inner half."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

from typing_extensions import Buffer, disjoint_base

__all__ = [
    "BODY_KEYS",
    "DEBUG_BUILD",
    "PROFILES",
    "STATS",
    "STRATEGIES",
    "VERSION",
    "Hold",
    "KvIndex",
    "Replicas",
    "ResidentEngineStats",
    "ResidentRequestStats",
    "Router",
    "Table",
    "Trace",
    "after_fork_in_child",
    "after_fork_in_parent",
    "before_fork",
    "json",
    "leave_interpreter",
    "load_table",
    "own_and_others",
    "prompt_blocks",
    "ranked",
    "replay",
    "save_table",
    "saved_hashing",
]

STATS: list[str]
STRATEGIES: list[str]
PROFILES: list[tuple[str, int]]
BODY_KEYS: list[str]
DEBUG_BUILD: bool
VERSION: str

@final
class Table:
    def __new__(cls, window: float = 60.0, lease: float = 600.0) -> Table: ...
    def configure(self, window: float, lease: float) -> None: ...
    def add(self, url: str) -> int: ...
    def remove(self, url: str) -> bool: ...
    def row(self, url: str) -> int | None: ...
    @property
    def urls(self) -> list[str | None]: ...
    @property
    def rows(self) -> int: ...
    @property
    def live(self) -> int: ...
    @property
    def leases_expired(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    def load_columns(
        self, columns: Mapping[str, Buffer], urls: list[str] | None = None
    ) -> None: ...
    def column(self, name: str) -> list[float]: ...
    def clear_stats(self, url: str) -> None: ...
    def forget(self, url: str | None, learned: bool) -> None: ...
    def set_eligible(self, url: str, eligible: bool) -> None: ...
    def sent(self, url: str, id: str, time: float) -> str | None: ...
    def first_token(
        self, url: str, id: str, time: float
    ) -> list[tuple[str, str | None, float]] | None: ...
    def end(
        self,
        url: str,
        id: str,
        time: float,
        status: int | None = None,
        reason: str | None = None,
        retry_after: float | None = None,
        /,
    ) -> list[tuple[str, str | None, float]] | None: ...
    def set_health(
        self,
        settings: tuple[
            bool,
            tuple[int, int, int, int],
            tuple[float, float, float],
            tuple[float, float, float, float, float],
        ],
        seed: int,
    ) -> None: ...
    def standing(self, url: str) -> tuple[str, float, str | None, float | None] | None: ...
    def is_out(self, url: str, now: float) -> bool: ...
    @property
    def endpoints_out(self) -> dict[str, int]: ...
    @property
    def ejections(self) -> int: ...
    def usage(
        self,
        url: str,
        id: str,
        prompt: int | None,
        cached: int | None,
        generated: int | None,
        /,
    ) -> str | None: ...
    def held(self, url: str) -> tuple[int, int, int]: ...
    @property
    def predictions(self) -> tuple[int, int, int, int]: ...
    @property
    def engine(self) -> tuple[list[float], list[float], float, list[float], float, float]: ...
    def set_kv_tokens(self, tokens: float) -> None: ...
    def elsewhere(self, url: str, count: int) -> None: ...
    def swapped(self, url: str) -> None: ...
    def advance(self, now: float) -> None: ...
    def request_stats(
        self, url: str, now: float
    ) -> tuple[float, float, int, int, int, float, float, int] | None: ...
    def all_request_stats(
        self, now: float
    ) -> list[tuple[str, tuple[float, float, int, int, int, float, float, int]]]: ...

@final
class KvIndex:
    def __new__(cls, seed: int, max_blocks: int) -> KvIndex: ...
    def live(
        self, url: str, rank: int, messages: list[tuple[int, bytes]], can_replay: bool
    ) -> int | None: ...
    def replayed(self, url: str, rank: int, messages: list[tuple[int, bytes]]) -> int | None: ...
    def replay_end(self, url: str, rank: int, complete: bool) -> int | None: ...
    def disconnected(self, url: str, rank: int, can_replay: bool) -> None: ...
    def reconnected(self, url: str, rank: int, can_replay: bool) -> int | None: ...
    def expect(self, url: str, ranks: int) -> None: ...
    def forget(self, url: str | None = None) -> None: ...
    def set_doubted(self, url: str, doubted: bool) -> bool: ...
    def set_shared(self, url: str, shared: bool) -> None: ...
    def drop_endpoint(self, url: str) -> bool: ...
    def matched(
        self,
        token_ids: Any,
        urls: list[str],
        lora_name: str | None = None,
        extras: bytes | None = None,
        /,
    ) -> list[tuple[int, int, int]]: ...
    def exact(self, urls: list[str]) -> list[bool]: ...
    def block_size(self, url: str) -> int: ...
    def counters(self, url: str, rank: int) -> dict[str, Any] | None: ...
    @property
    def blocks(self) -> int: ...
    @property
    def bytes(self) -> int: ...

@final
class Replicas:
    def __new__(
        cls,
        table: Table,
        *,
        group: str,
        grain: int = 0,
        origin: int,
        epoch: int,
        every: float = 0.05,
    ) -> Replicas: ...
    def tell(self, now: float) -> bytes | None: ...
    def hear(self, message: bytes, now: float) -> tuple[str, int, bool]: ...
    def pass_time(self, now: float) -> None: ...
    def bye(self, now: float) -> bytes: ...
    def clear(self) -> None: ...
    def peers(self, now: float) -> list[tuple[int, float, int]]: ...
    def counts(self) -> tuple[list[tuple[str, int]], float, list[tuple[str, int]]]: ...
    def has_joined(self) -> bool: ...
    def hints(self) -> list[tuple[str, int]]: ...
    def others(self, url: str) -> tuple[int, int, float, int]: ...

def own_and_others(
    stats: ResidentRequestStats, urls: list[str]
) -> list[tuple[float, float]] | None: ...

@final
class Hold:
    def __new__(
        cls,
        router: Router,
        *,
        room: float | None = None,
        look_ahead: int | None = None,
        reserve_after_s: float | None = None,
        max_requests: int | None = None,
        max_tokens: int | None = None,
        max_wait_s: float | None = None,
        priority_s: float | None = None,
        sessions: bool = False,
        session_idle_s: float | None = None,
    ) -> Hold: ...
    def arrive(
        self,
        session: str | None,
        body: Any,
        ids: Any,
        request: str | None,
        priority: float,
        patience: float | None,
        now: float,
        turn_of: str | None = None,
        /,
    ) -> int: ...
    def retry(
        self,
        endpoints: Any,
        engine_stats: Any,
        request_stats: Any,
        waiters: list[int],
        now: float,
        time: float,
        first: bool,
        /,
    ) -> list[tuple[int, str | None, float, str | None, float]]: ...
    def explain(
        self,
        endpoints: Any,
        engine_stats: Any,
        request_stats: Any,
        session: str | None,
        body: Any,
        ids: Any,
        now: float,
        /,
    ) -> tuple[str, float, float, float] | None: ...
    def leave(self, waiter: int) -> bool: ...
    def expired(self, now: float) -> list[tuple[int, str | None, float, str | None, float]]: ...
    def due(self) -> list[int]: ...
    def wake_at(self, now: float) -> float: ...
    def before(self, waiter: int) -> int: ...
    @property
    def counts(self) -> tuple[int, int, int, int, float, list[tuple[str, int]], int]: ...

@disjoint_base
class ResidentRequestStats:
    def __new__(cls, table: Table, now: float) -> ResidentRequestStats: ...
    @property
    def table(self) -> Table: ...
    @property
    def now(self) -> float: ...

@disjoint_base
class ResidentEngineStats:
    def __new__(cls, table: Table, *_args: Any) -> ResidentEngineStats: ...
    @property
    def table(self) -> Table: ...

@final
class Router:
    def __new__(
        cls,
        strategy: str,
        params: dict[str, Any],
        seed: int,
        prompts: tuple[int, int, int, float],
        kv_index: KvIndex | None = None,
        no_ids: Any = None,
    ) -> Router: ...
    def route_request(
        self,
        endpoints: Any,
        engine_stats: Any,
        request_stats: Any,
        request: Any,
        request_json: Any = None,
    ) -> str: ...
    def route(
        self,
        endpoints: Any,
        engine_stats: Any,
        request_stats: Any,
        session: str | None = None,
        body: Any = None,
        ids: Any = None,
        /,
    ) -> str: ...
    def forget(self, url: str | None = None) -> None: ...
    def route_batch(
        self,
        endpoints: Any,
        engine_stats: Any,
        request_stats: Any,
        keys: Iterable[Any],
        ids: list[Any] | None = None,
    ) -> bytes: ...
    def explain(
        self,
        endpoints: Any,
        engine_stats: Any,
        request_stats: Any,
        session: str | None = None,
        body: Any = None,
        ids: Any = None,
        /,
    ) -> tuple[
        str,
        list[
            tuple[
                str,
                bool,
                float,
                list[tuple[str, float, str]],
                tuple[str, float, str | None, float | None] | None,
            ]
        ],
    ]: ...

@final
class Trace:
    def __new__(cls, block: int) -> Trace: ...
    def extend(
        self,
        *,
        arrival: Buffer,
        input: Buffer,
        output: Buffer,
        session: Buffer,
        delay: Buffer,
        id_counts: Buffer,
        ids: Buffer,
        after_counts: Buffer,
        after: Buffer,
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def input_tokens(self) -> int: ...
    def columns(self) -> list[bytes]: ...
    def head(self, rows: int) -> Trace: ...

def before_fork() -> None: ...
def after_fork_in_parent() -> None: ...
def after_fork_in_child() -> None: ...
def leave_interpreter(seconds: float) -> int: ...
def json(content: bytes, /) -> Any: ...
def ranked(
    router: Router,
    endpoints: Any,
    engine_stats: Any,
    request_stats: Any,
    session: str | None,
    body: Any,
    ids: Any,
    first: str | None,
    count: int,
    /,
) -> list[str]: ...
def saved_hashing(state: bytes) -> tuple[int, int, int]: ...
def save_table(table: Table, hashing: tuple[int, int, int]) -> tuple[list[str], bytes]: ...
def load_table(
    table: Table, urls: Sequence[str], state: bytes, hashing: tuple[int, int, int]
) -> int: ...
def prompt_blocks(body: Any, block: int) -> tuple[bytes, int, int, int | None] | None: ...
def replay(
    trace: Trace,
    engines: list[tuple[str, int, int, int, int, float]],
    *,
    strategy: tuple[str, dict[str, Any], list[float], list[int]] | None = None,
    assigned: Buffer | None = None,
    gateway: Any = None,
    speedup: float = 1.0,
    jitter: float = 0.0,
    seed: int = 0,
    stats_period: float = 0.0,
    stats_delay: float = 0.0,
    kv_event_delay: float | None = None,
    changes: list[tuple[float, int, str]] = ...,
    hold: dict[str, float] | None = None,
    decisions: int = 0,
    share: tuple[float, float, float] | None = None,
    progress: Any = None,
) -> dict[str, Any]: ...
