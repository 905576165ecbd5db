"""Every entry point of the compiled core, with arguments whose code calls the core again.

Run as a script: getters, comparisons, `__str__`, `__index__` and finalizers re-enter, the collector
runs at every allocation, and four threads do so at once on the same objects. A lock that is held
while foreign code runs hangs it, and the watchdog ends it with all stacks.
"""

import faulthandler
import gc
import itertools
import sys
import threading
from array import array
from collections.abc import Callable
from typing import Any

import msgspec
from routecore import _core

ROUNDS = 12
THREADS = 4
STRATEGIES = ("least_connections", "prefix_cache", "round_robin", "expected_latency")
PROMPTS = (128, 16, 7, 400_000.0)
TOKENS = list(range(1000, 1064))

depth = threading.local()
counter = itertools.count()


class World:
    """One of each class of the core, shared by all threads."""

    def __init__(self) -> None:
        self.table = _core.Table()
        self.index = _core.KvIndex(1, 1 << 16)
        self.stats = _core.ResidentRequestStats(self.table, 0.0)
        self.engine = _core.ResidentEngineStats(self.table)
        self.routers = [
            _core.Router(name, {}, 1, PROMPTS, self.index if "prefix" in name else None)
            for name in STRATEGIES
        ]
        self.trace = trace()
        self.hold = _core.Hold(self.routers[0])
        self.replicas = _core.Replicas(self.table, group="g", origin=1, epoch=1)
        self.other = _core.Replicas(_core.Table(), group="g", origin=2, epoch=1)

    @property
    def router(self) -> Any:
        """Another one each time."""
        return self.routers[next(counter) % len(self.routers)]


def poke() -> None:
    """Call the core again, as anybody's finalizer or getter may."""
    if getattr(depth, "now", 0) > 1 or not hasattr(depth, "world"):
        return
    depth.now = getattr(depth, "now", 0) + 1
    try:
        world, n = depth.world, next(counter)
        stats = world.stats if n % 2 else {}
        world.router.route(
            [Plain(f"p{n % 50}"), Plain("p")], {}, stats, None, {"prompt": "x" * 300}
        )
        world.table.sent(f"p{n % 50}", str(n), 0.0)
        assert world.table.urls is not None
        world.index.counters("a", 0)
        assert world.index.bytes >= 0
        world.index.live("a", 0, [message(n)], False)
    finally:
        depth.now -= 1


class Plain:
    """An endpoint without surprises."""

    def __init__(self, url: str) -> None:
        self.url = url


class Hostile:
    """An endpoint, or stats, whose every part calls the core again."""

    def __init__(self, name: str) -> None:
        self.name, self.me = name, self  # a cycle: only the collector frees it

    def __getattr__(self, _: str) -> Any:
        poke()
        raise AttributeError

    @property
    def url(self) -> str:
        poke()
        return self.name

    @property
    def healthy(self) -> bool:
        poke()
        return next(counter) % 5 > 0

    @property
    def active_connections(self) -> "Number":
        poke()
        return Number(3)

    def __eq__(self, other: object) -> bool:
        poke()
        return next(counter) % 2 > 0

    __hash__ = object.__hash__

    def __del__(self) -> None:
        poke()


class Number:
    """A number that calls the core again."""

    def __init__(self, value: int) -> None:
        self.value, self.me = value, self

    def __float__(self) -> float:
        poke()
        return float(self.value)

    def __index__(self) -> int:
        poke()
        return self.value

    def __del__(self) -> None:
        poke()


class Name(str):
    """A text that calls the core again when it goes."""

    def __str__(self) -> str:
        poke()
        return "".join(self)

    def __eq__(self, other: object) -> bool:
        poke()
        return str.__eq__(self, other)

    __hash__ = str.__hash__

    def __del__(self) -> None:
        poke()


class Body(dict[str, Any]):
    """A request's body that calls the core again when it goes."""

    def __del__(self) -> None:
        poke()


def endpoints() -> Any:
    """Some of few URLs, in a list, a tuple or a generator; many lists, so that they are evicted."""
    n = next(counter)
    made = [Hostile(f"h{(n + i) % 60}") for i in range(1 + n % 4)]
    return made if n % 3 == 0 else tuple(made) if n % 3 == 1 else (e for e in made)


def body() -> Any:
    """A prompt."""
    n = next(counter)
    return Body(model=Name("m"), prompt=Name(f"{n % 9} " * 400))


def message(n: int, url: str = "a") -> tuple[int, bytes]:
    """A message of KV events; numbers have gaps, which make the index forget and start over."""
    stored = ["BlockStored", [n, n + 1], None, TOKENS[:32], 16]
    return n, msgspec.msgpack.encode([1.0, [stored], None])


def trace() -> Any:
    """Three requests."""
    made = _core.Trace(512)
    made.extend(**columns())
    return made


def columns() -> dict[str, Any]:
    """Of three requests."""
    return {
        "arrival": array("d", [0.0, 1.0, 2.0]),
        "input": array("I", [512, 512, 512]),
        "output": array("I", [2, 2, 2]),
        "session": array("q", [-1, -1, -1]),
        "delay": array("d", [0.0, 0.0, 0.0]),
        "id_counts": array("I", [1, 1, 1]),
        "ids": array("Q", [1, 2, 3]),
        "after_counts": array("I", [0, 0, 0]),
        "after": array("I", []),
    }


def stats(world: World) -> tuple[Any, Any]:
    """Engine and request stats: ours, or hostile objects in dicts."""
    if next(counter) % 2:
        return world.engine, world.stats
    return {f"h{i}": Hostile("x") for i in range(4)}, {}


class Gateway:
    """A Python gateway of a replay."""

    def choose(self, *_: Any) -> int:
        poke()
        return 0

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: poke()


def replay(world: World) -> None:
    """With a gateway of our own."""
    engine = (_core.PROFILES[0][0], 512, 64, 8192, 64, 1.0)
    _core.replay(world.trace, [engine], gateway=Gateway(), progress=lambda _: poke())


def tokens() -> Any:
    """Token ids, some of which are not plain integers."""
    return [Number(token) if token % 7 == 0 else token for token in TOKENS]


def _route(world: World, call: Callable[..., Any]) -> None:
    call(endpoints(), *stats(world))


CASES: dict[str, Callable[[World], Any]] = {
    "Router.route_request": lambda w: _route(
        w, lambda *a: w.routers[0].route_request(*a, Hostile("r"))
    ),
    "Router.route": lambda w: _route(
        w, lambda *a: w.router.route(*a, None, body(), tokens() if next(counter) % 2 else None)
    ),
    "Router.forget": lambda w: w.router.forget(Name("h1") if next(counter) % 2 else None),
    "Router.route_batch": lambda w: _route(
        w, lambda *a: w.router.route_batch(*a, (body() for _ in range(3)))
    ),
    "ranked": lambda w: _route(
        w, lambda *a: _core.ranked(w.router, *a, None, body(), None, None, 2)
    ),
    "json": lambda w: _core.json(b'{"a": [1, "b", {"c": 0.5}]}'),
    "Router.explain": lambda w: _route(w, lambda *a: w.router.explain(*a, None, body())),
    "Router.__new__": lambda w: _core.Router(
        "random", {"endpoint_weights": {Name("a"): 1.0}}, 1, PROMPTS
    ),
    "Table.__new__": lambda w: _core.Table(),
    "Table.configure": lambda w: w.table.configure(60.0, 600.0),
    "Table.add": lambda w: w.table.add(Name("h1")),
    "Table.remove": lambda w: w.table.remove(Name("h1")),
    "Table.row": lambda w: w.table.row(Name("h1")),
    "Table.urls": lambda w: w.table.urls,
    "Table.rows": lambda w: w.table.rows,
    "Table.live": lambda w: w.table.live,
    "Table.leases_expired": lambda w: w.table.leases_expired,
    "Table.in_flight": lambda w: w.table.in_flight,
    "Table.load_columns": lambda w: (
        w.table.add("h2"),
        w.table.load_columns({Name("num_running_requests"): array("d", [1.0])}, [Name("h2")]),
    ),
    "Table.column": lambda w: w.table.column(Name("in_flight")),
    "Table.clear_stats": lambda w: w.table.clear_stats(Name("h1")),
    "Table.forget": lambda w: w.table.forget(Name("h1"), True),
    "Table.set_eligible": lambda w: w.table.set_eligible(str(w.table.add("h3") and "h3"), True),
    "Table.sent": lambda w: w.table.sent(Name("h1"), Hostile("id"), 0.0),
    "Table.first_token": lambda w: w.table.first_token(Name("h1"), Hostile("id"), 0.0),
    "Table.end": lambda w: w.table.end(Name("h1"), Hostile("id"), 0.0),
    "Table.set_health": lambda w: w.table.set_health(
        (True, (5, 2, 20, 8), (0.5, 0.5, 0.1), (5.0, 60.0, 60.0, 10.0, 60.0)), 1
    ),
    "Table.standing": lambda w: w.table.standing(Name("h1")),
    "Table.is_out": lambda w: w.table.is_out(Name("h1"), 0.0),
    "Table.endpoints_out": lambda w: w.table.endpoints_out,
    "Table.ejections": lambda w: w.table.ejections,
    "Table.usage": lambda w: w.table.usage(Name("h1"), Hostile("id"), Number(1), Number(1), None),
    "Table.held": lambda w: w.table.held(Name("h1")),
    "Table.predictions": lambda w: w.table.predictions,
    "Table.engine": lambda w: w.table.engine,
    "Table.set_kv_tokens": lambda w: w.table.set_kv_tokens(400_000.0),
    "Table.elsewhere": lambda w: w.table.elsewhere(Name("h1"), Number(0)),
    "Table.swapped": lambda w: w.table.swapped(Name("h1")),
    "Table.advance": lambda w: w.table.advance(0.0),
    "Table.request_stats": lambda w: w.table.request_stats(Name("h1"), 0.0),
    "Table.all_request_stats": lambda w: w.table.all_request_stats(0.0),
    "KvIndex.__new__": lambda w: _core.KvIndex(1, 16),
    "KvIndex.live": lambda w: w.index.live(Name("a"), 0, [message(next(counter))], False),
    "KvIndex.replayed": lambda w: w.index.replayed(Name("a"), 0, [message(next(counter))]),
    "KvIndex.replay_end": lambda w: w.index.replay_end(Name("a"), 0, True),
    "KvIndex.disconnected": lambda w: w.index.disconnected(Name("a"), 0, False),
    "KvIndex.reconnected": lambda w: w.index.reconnected(Name("a"), 0, False),
    "KvIndex.drop_endpoint": lambda w: w.index.drop_endpoint(Name("a")),
    "KvIndex.expect": lambda w: w.index.expect(Name("a"), 1),
    "KvIndex.forget": lambda w: w.index.forget(Name("a")),
    "KvIndex.set_doubted": lambda w: w.index.set_doubted(Name("a"), False),
    "KvIndex.set_shared": lambda w: w.index.set_shared(Name("a"), False),
    "KvIndex.matched": lambda w: w.index.matched(tokens(), [Name("a"), "b"], Name("l"), None),
    "KvIndex.exact": lambda w: w.index.exact([Name("a"), "\ud800"]),
    "KvIndex.block_size": lambda w: w.index.block_size(Name("a\ud800")),
    "KvIndex.counters": lambda w: w.index.counters(Name("a"), 0),
    "KvIndex.blocks": lambda w: w.index.blocks,
    "KvIndex.bytes": lambda w: w.index.bytes,
    "ResidentRequestStats.__new__": lambda w: _core.ResidentRequestStats(w.table, 0.0),
    "ResidentRequestStats.table": lambda w: w.stats.table,
    "ResidentRequestStats.now": lambda w: w.stats.now,
    "ResidentEngineStats.__new__": lambda w: _core.ResidentEngineStats(w.table, Hostile("x")),
    "ResidentEngineStats.table": lambda w: w.engine.table,
    "Hold.__new__": lambda w: _core.Hold(w.routers[1]),
    "Replicas.__new__": lambda w: _core.Replicas(w.table, group=Name("g"), origin=3, epoch=1),
    "Replicas.tell": lambda w: w.replicas.tell(Number(next(counter))),
    "Replicas.hear": lambda w: w.replicas.hear(w.other.tell(next(counter)) or b"", Number(1)),
    "Replicas.pass_time": lambda w: w.replicas.pass_time(Number(1)),
    "Replicas.bye": lambda w: w.other.bye(Number(1)),
    "Replicas.clear": lambda w: w.replicas.clear(),
    "Replicas.peers": lambda w: w.replicas.peers(Number(1)),
    "Replicas.counts": lambda w: w.replicas.counts(),
    "own_and_others": lambda w: _core.own_and_others(w.stats, [Name("p")]),
    "Replicas.hints": lambda w: w.replicas.hints(),
    "Replicas.has_joined": lambda w: w.replicas.has_joined(),
    "Replicas.others": lambda w: w.replicas.others(Name("p")),
    "Hold.arrive": lambda w: w.hold.arrive(Name("s"), body(), None, Name("r"), 0.0, None, 0.0),
    "Hold.retry": lambda w: _route(w, lambda *a: w.hold.retry(*a, w.hold.due(), 0.0, 0.0, True)),
    "Hold.explain": lambda w: _route(w, lambda *a: w.hold.explain(*a, None, body(), None, 0.0)),
    "Hold.leave": lambda w: w.hold.leave(Number(1)),
    "Hold.expired": lambda w: w.hold.expired(0.0),
    "Hold.due": lambda w: w.hold.due(),
    "Hold.wake_at": lambda w: w.hold.wake_at(0.0),
    "Hold.before": lambda w: w.hold.before(Number(1)),
    "Hold.counts": lambda w: w.hold.counts,
    "Trace.__new__": lambda w: _core.Trace(512),
    "Trace.__len__": lambda w: len(w.trace),
    "Trace.extend": lambda w: _core.Trace(512).extend(**columns()),
    "Trace.block": lambda w: w.trace.block,
    "Trace.input_tokens": lambda w: w.trace.input_tokens,
    "Trace.columns": lambda w: w.trace.columns(),
    "Trace.head": lambda w: w.trace.head(2),
    "prompt_blocks": lambda w: _core.prompt_blocks(body(), 16),
    "save_table": lambda w: _core.save_table(w.table, (1, 128, 16)),
    "load_table": lambda w: _core.load_table(_core.Table(), *saved(w), (1, 128, 16)),
    "saved_hashing": lambda w: _core.saved_hashing(saved(w)[1]),
    "replay": replay,
}

ELSEWHERE = {
    # Of forks and exits: test_fork.py, test_exit.py.
    "before_fork",
    "after_fork_in_parent",
    "after_fork_in_child",
    "leave_interpreter",
}


def saved(world: World) -> tuple[list[str], bytes]:
    """A table's state, its URLs as objects that call in again."""
    urls, state = _core.save_table(world.table, (1, 128, 16))
    return [Name(url) for url in urls], state


def main() -> None:
    """All cases in all threads; prints what was done."""
    faulthandler.dump_traceback_later(float(sys.argv[1]), exit=True)
    sys.setswitchinterval(1e-5)
    world = World()
    done: list[str] = []

    def work(first: int) -> None:
        depth.world = world
        names = list(CASES)
        for n in range(ROUNDS * len(names)):
            name = names[(first + n) % len(names)]
            try:
                CASES[name](world)
            except Exception as error:
                if "internal error" in str(error):
                    raise
                if not isinstance(error, (RuntimeError, ValueError)) and "Route" not in repr(error):
                    raise
        done.append("ok")

    gc.set_threshold(1)
    threads = [threading.Thread(target=work, args=(17 * t,)) for t in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"{len(done)} threads done")


if __name__ == "__main__":
    main()
