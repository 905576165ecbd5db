"""`routecore kv-events tail`, and the demo's engines as publishers."""

import asyncio
import json
import sys
import threading
from typing import Any

import pytest
import zmq
from click.testing import CliRunner, Result
from kv_messages import stored
from kv_sockets import Sockets, wait
from routecore import PrefixCacheRouter, new_instance
from routecore.cli import main
from routecore.demo import gateways
from routecore.demo.engine import prompt_text, toy_tokens
from routecore.demo.runner import run
from routecore.demo.scheduler import Scheduler
from routecore.demo.sequence import Sequence
from routecore.demo.traffic import conversations
from routecore.kv_events.tail import state
from test_demo import TEXT, finish
from test_kv_index import prompt


def tail(*args: str) -> Result:
    return CliRunner().invoke(main, ["kv-events", "tail", *args])


def test_tail_shows_rates_losses_and_held_blocks() -> None:
    with zmq.Context() as context:
        engine = Sockets(context)
        stop = threading.Event()

        def send() -> None:
            for number in range(10_000):
                if stop.wait(0.01):
                    return
                engine.send(stored([number], None, prompt(number)[:-1]), lost=number == 3)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            address, replay = engine.address, ("--replay", engine.replay)
            for seconds in ("0.8", "5", "20"):  # longer where the machine is busy
                result = tail(address, *replay, "--json", "--every", "0.2", "--seconds", seconds)
                rows = [json.loads(line)[0] for line in result.stdout.splitlines()]
                rows = [row for row in rows if row["exact"] and row["blocks"] > 10]
                if rows and rows[-1]["stored_per_s"] > 10:
                    break
            for seconds in ("0.5", "5", "20"):
                shown = tail(address, "--every", "0.2", "--seconds", seconds)
                if "partial" in shown.output:
                    break
        finally:
            stop.set()
            sending.join()
            engine.close()
    assert result.exit_code == 0, result.output
    assert rows, result.stdout
    assert rows[-1]["connected"]
    assert rows[-1]["stored_per_s"] > 10
    assert rows[-1]["hit_share"] is None
    assert shown.exit_code == 0
    assert "partial" in shown.output  # joined late, and nobody to ask


def test_the_state_names_what_is_odd() -> None:
    row = {"connected": False, "last_event_age_s": None, "resyncing": False}
    assert state(row) == "not connected"
    row = {"connected": True, "last_event_age_s": 1.0, "resyncing": False, "batches": 3}
    assert state({**row, "gaps": 2, "unknown_media": 1}) == "partial, gaps 2, unknown_media 1"
    assert state({**row, "exact": True}) == "exact"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ((), "ADDRESS"),
        (("http://a:1",), "tcp://host:port"),
        (("tcp://127.0.0.1:1", "--replay", "tcp://a:1", "--replay", "tcp://a:2"), "--replay"),
        (("tcp://127.0.0.1:1", "tcp://127.0.0.1:1"), "already"),
    ],
)
def test_bad_arguments_are_one_line(args: tuple[str, ...], text: str) -> None:
    result = tail(*args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert text in result.stderr


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "routecore.kv_events.subscriber", raising=False)
    monkeypatch.setitem(sys.modules, "zmq", None)
    result = tail("tcp://127.0.0.1:1")
    assert result.exit_code == 2
    assert "pip install 'routecore[kv-events]'" in result.stderr


class Log:
    """What a cache tells, without sockets."""

    def __init__(self) -> None:
        self.blocks: set[int] = set()

    def stored(self, sequence: Sequence, index: int) -> None:
        assert len(sequence.token_ids) >= 16 * (index + 1)
        self.blocks.add(sequence.keys[index])

    def evicted(self, key: int) -> None:
        self.blocks.discard(key)

    def cleared(self) -> None:
        self.blocks.clear()

    def flush(self) -> None: ...


def test_the_log_follows_the_cache_through_evictions() -> None:
    log = Log()
    scheduler = Scheduler(kv_tokens=100 * 16, log=log)  # type: ignore[arg-type]
    for i in range(8):
        asked = finish(scheduler, f"{i:04d}" + TEXT[: 40 * 64 + i * 64], output=30, tokens=True)
        assert asked.keys[0] in log.blocks
        cache = scheduler.cache
        held = {key for key in (*cache.active, *cache.free) if key >= 0}
        assert log.blocks == held
    scheduler.reset()
    assert not log.blocks


def test_equal_texts_have_equal_tokens_in_steps_of_four() -> None:
    one, two = toy_tokens("abcdefgh"), toy_tokens("abcdEFGH")
    assert len(one) == len(two) == 2
    assert one[0] == two[0]
    assert one[1] != two[1]
    assert len(set(toy_tokens(TEXT).tolist())) > 1000  # of 1,024 different ones
    assert len(toy_tokens("\ud800")) == 1
    assert prompt_text({"prompt": "x"}) == "x"


def test_the_demos_events_agree_with_its_engines_hits() -> None:
    jobs = conversations(rate=20, seconds=6, seed=1)
    run_ = run(jobs, ["prefix_affinity"], endpoints=2, seconds=1.0, speed=6, kv_events=True)
    (result,) = asyncio.run(run_)
    figures = result.as_dict()
    assert figures["errors"] == 0
    assert figures["token_hit_rate"] > 0.1
    assert figures["event_hit_rate"] == pytest.approx(figures["token_hit_rate"], abs=0.1)


def test_the_demos_cache_strategies_go_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = conversations(rate=20, seconds=6, seed=1)
    seen: list[PrefixCacheRouter] = []

    def made(kind: Any, *args: Any, **kwargs: Any) -> Any:
        instance = new_instance(kind, *args, **kwargs)
        if isinstance(instance, PrefixCacheRouter):
            seen.append(instance)
        return instance

    monkeypatch.setattr(gateways, "new_instance", made)
    names = ["round_robin", "prefix_cache"]
    for seconds in (1.0, 3.0, 9.0):  # longer where the machine is busy
        seen.clear()
        jobs = conversations(rate=20, seconds=6 * seconds, seed=1)
        run_ = run(jobs, names, endpoints=2, seconds=seconds, speed=6, kv_events=True)
        plain, by_events = asyncio.run(run_)
        hits = [result.as_dict()["token_hit_rate"] for result in (plain, by_events)]
        if hits[1] > hits[0]:
            break
    assert (plain.cache_by, by_events.cache_by) == (None, "events")
    assert seen[0]._kv_index is not None
    assert seen[0].prompts_without_ids == 0
    assert by_events.errors == 0
    assert hits[1] > hits[0]


def test_closing_leaves_no_thread() -> None:
    before = threading.active_count()
    tail("tcp://127.0.0.1:1", "--seconds", "0.1", "--every", "0.05")
    wait(lambda: threading.active_count() <= before)
