"""The exact index against its naive twin, and the payloads that engines are known to send."""

import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kv_messages import cleared, message, removed, stored
from naive_kv import NaiveKV
from routecore import RouteError
from routecore.kv_events import KVIndex

A, B = "http://a:8000", "http://b:8000"
BLOCK = 4


def prompt(*blocks: int) -> list[int]:
    """Tokens of blocks named by a number; one token more, since the last never counts."""
    return [b * 10 + i for b in blocks for i in range(BLOCK)] + [9999]


class Feed:
    """An index and its publishers' sequence numbers."""

    def __init__(self) -> None:
        self.index = KVIndex(seed=7)
        self.next: dict[tuple[str, int], int] = {}

    def send(self, *events: Any, url: str = A, rank: int = 0, **options: Any) -> None:
        self.raw(message(*events, **{"rank": rank, **options}), url, rank)

    def raw(self, payload: bytes, url: str = A, rank: int = 0) -> None:
        seq = self.next.get((url, rank), 0)
        self.next[url, rank] = seq + 1
        assert self.index.core.live(url, rank, [(seq, payload)], False) is None

    def depth(self, tokens: list[int], url: str = A, **options: Any) -> int:
        """Blocks held on any tier."""
        return self.index.matched(tokens, [url], **options)[0][2] // BLOCK

    def count(self, name: str, url: str = A, rank: int = 0) -> int:
        counters = self.index.counters(url, rank)
        assert counters is not None
        return counters[name]


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("outer_map", [False, True])
def test_both_encodings_store_remove_and_clear(feed: Feed, old: bool, outer_map: bool) -> None:
    def send(event: Any) -> None:
        feed.send(event, old=old, outer_map=outer_map)

    send(stored([11, 12, 13], None, prompt(1, 2, 3)[:-1], medium="GPU"))
    assert feed.depth(prompt(1, 2, 3)) == 3  # the parent advances within the event
    send(removed([13], medium="GPU"))
    assert feed.depth(prompt(1, 2, 3)) == 2
    send(stored([14], 12, prompt(4)[:-1], medium="GPU"))
    assert feed.depth(prompt(1, 2, 4)) == 3
    send(cleared())
    assert feed.depth(prompt(1, 2, 3)) == 0
    assert feed.index.blocks == 0
    assert feed.index.is_exact(A)


def test_a_batch_of_a_live_engine(feed: Feed) -> None:
    """vLLM 0.26: map event in an outer array, hash above 2**63."""
    event = {
        "type": "BlockStored",
        "block_hashes": [14_902_870_432_170_962_331],
        "parent_block_hash": None,
        "token_ids": list(range(100, 116)),
        "block_size": 16,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
        "extra_keys": [None],
        "group_idx": 0,
        "kv_cache_spec_kind": "full_attention",
    }
    feed.raw(msgspec.msgpack.encode([1764000000.25, [event], 0]))
    assert feed.index.matched([*range(100, 116), 1], [A]) == [(16, 16, 16)]
    assert feed.index.block_size(A) == 16


@pytest.mark.parametrize(
    ("reported", "again"),
    [
        (2**64 - 2, -2),
        (-(2**63), 2**63),
        (b"\x00" * 24 + struct.pack(">Q", 2**63 + 5), 2**63 + 5),
        (b"\x01\x02", 0x0102),
        (b"", 0),
    ],
)
def test_hashes_of_all_forms_name_the_same_block(feed: Feed, reported: Any, again: Any) -> None:
    feed.send(stored([reported], None, prompt(1)[:-1]))
    feed.send(stored([77], again, prompt(2)[:-1]))
    assert feed.depth(prompt(1, 2)) == 2
    feed.send(removed([again]))
    assert feed.depth(prompt(1, 2)) == 0


def test_short_and_overlong_arrays(feed: Feed) -> None:
    feed.send(["BlockStored", [1], None, prompt(1)[:-1], BLOCK])
    more = [None, "GPU", None, None, None, None, None, "future", {"a": [1]}]
    feed.send(["BlockStored", [2], 1, prompt(2)[:-1], BLOCK, *more])
    assert feed.depth(prompt(1, 2)) == 2
    feed.send(["BlockStored", [3], None, []])
    assert feed.count("malformed") == 1


def test_what_is_new_is_passed_over_and_counted(feed: Feed) -> None:
    unknown = {"type": "BlockMoved", "block_hashes": [1], "to": {"x": [1, 2, {"y": None}]}}
    known = stored([1], None, prompt(1)[:-1], future={"deep": [[[]]]}, medium="GPU")
    feed.send(unknown, known, stored([5], None, prompt(5)[:-1], medium="HBM4"))
    assert feed.depth(prompt(1)) == 1
    assert feed.depth(prompt(5)) == 0  # an unknown medium is no device
    assert feed.count("unknown_types") == feed.count("unknown_media") == 1


@pytest.mark.parametrize(
    "bad",
    [
        7,
        [],
        {"block_hashes": [1]},
        {"type": "BlockStored"},
        stored(["x", 1.5], None, prompt(1)[:-1]),
        stored([9], None, [1, 2, 3, -4]),
        stored([9], None, [1, 2, 3, 2**32]),
        stored([9], None, prompt(1)),
        stored([9], None, prompt(1)[:-1], extra_keys=[None, None]),
        stored([9], None, prompt(1)[:-1], extra_keys=[[1.5]]),
        stored([2**64 - 1, [1]], None, prompt(1)[:-1]),
    ],
)
def test_one_malformed_event_does_not_void_its_batch(feed: Feed, bad: Any) -> None:
    before, after = stored([1], None, prompt(1)[:-1]), stored([2], 1, prompt(2)[:-1])
    feed.send(before, bad, after)
    assert feed.depth(prompt(1, 2)) == 2
    assert feed.count("malformed") == 1
    assert not feed.index.is_exact(A)  # it may have been a removal


def test_an_unreadable_message_is_a_loss(feed: Feed) -> None:
    whole = message(stored([1], None, prompt(1)[:-1]))
    for cut in range(len(whole)):
        lost = Feed()
        lost.send(stored([5], None, prompt(5)[:-1]))
        lost.raw(whole[:cut])
        assert lost.count("unreadable") == 1
        assert lost.depth(prompt(5)) == lost.depth(prompt(1)) == 0
        assert not lost.index.is_exact(A)
        lost.send(stored([6], None, prompt(6)[:-1]))
        assert lost.depth(prompt(6)) == 1


def test_contiguous_blocks_only_and_identities_not_counts(feed: Feed) -> None:
    """A index that jumps ahead by count scores A = 3 here; the truth is 1."""
    feed.send(stored([1, 7], None, prompt(1, 7)[:-1]), url=A)
    feed.send(stored([9, 2, 3], None, prompt(9, 2, 3)[:-1]), url=B)
    assert (feed.depth(prompt(1, 2, 3), A), feed.depth(prompt(1, 2, 3), B)) == (1, 0)
    feed.send(stored([2, 3], 1, prompt(2, 3)[:-1]), removed([1]), url=A)
    assert feed.depth(prompt(1, 2, 3), A) == 0


def test_the_block_that_ends_the_prompt_is_never_credited(feed: Feed) -> None:
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1]))
    assert feed.depth(prompt(1, 2)) == 2
    assert feed.depth(prompt(1, 2)[:-1]) == 1
    assert [feed.depth(prompt(1)[:n]) for n in range(6)] == [0, 0, 0, 0, 0, 1]


def test_stores_are_counted_and_unknown_removals_ignored(feed: Feed) -> None:
    event = stored([1], None, prompt(1)[:-1])
    feed.send(event, event, removed([1]))
    assert feed.depth(prompt(1)) == 1
    feed.send(removed([1]), removed([1]))
    assert feed.depth(prompt(1)) == 0
    assert feed.count("unknown_removed") == 1
    feed.send(event)
    assert feed.depth(prompt(1)) == 1


def test_a_hash_reported_for_other_tokens_is_another_block(feed: Feed) -> None:
    event = stored([1], None, prompt(1)[:-1])
    feed.send(event, event, stored([1], None, prompt(2)[:-1]))
    assert (feed.depth(prompt(1)), feed.depth(prompt(2)), feed.index.blocks) == (0, 1, 1)
    feed.send(removed([1]))
    assert feed.index.blocks == 0


def test_messages_kept_back_die_with_their_process() -> None:
    core = KVIndex(seed=7).core

    def one(number: int) -> bytes:
        return message(stored([number], None, prompt(number)[:-1]), time=number)

    assert [core.live(A, 0, [(seq, one(seq))], True) for seq in range(4)] == [None] * 4
    assert core.live(A, 0, [(6, one(6)), (7, one(7))], True) == 3
    assert core.replay_end(A, 0, True) == 0  # not even message 3: a younger process
    assert core.replayed(A, 0, [(0, one(90))]) is None
    assert core.replay_end(A, 0, True) is None  # 6 and 7 are not taken for a gap
    held = [core.matched(prompt(n), [A])[0][0] for n in (3, 6, 7, 90)]
    assert held == [0, 0, 0, BLOCK]
    assert core.exact([A]) == [True]


def test_tiers_are_residencies_of_their_own(feed: Feed) -> None:
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1], medium="GPU"))
    offload = {"token_ids": [], "block_size": 0}
    feed.send({**stored([2, 99], None, [], medium="CPU"), **offload})
    assert feed.count("unknown_hashes") == 1
    feed.send(removed([2], medium="GPU"))
    assert feed.index.matched(prompt(1, 2), [A]) == [(4, 8, 8)]
    feed.send(stored([2], 1, prompt(2)[:-1], medium="DISK"), removed([2], medium="CPU"))
    assert feed.index.matched(prompt(1, 2), [A]) == [(4, 4, 8)]
    feed.send(removed([2], medium="CPU"))
    assert feed.depth(prompt(1, 2)) == 2
    feed.send(removed([2], medium="DISK"))
    assert feed.depth(prompt(1, 2)) == 1


def test_an_offload_reported_before_the_store_is_skipped(feed: Feed) -> None:
    feed.send({**stored([1], None, [], medium="CPU"), "block_size": 0})
    feed.send(stored([1], None, prompt(1)[:-1], medium="GPU"), removed([1], medium="GPU"))
    assert feed.depth(prompt(1)) == 0


@pytest.mark.parametrize("where", [{"medium": "SHARED"}, {"medium": "GPU", "locality": "REMOTE"}])
def test_shared_and_remote_storage_favours_none(feed: Feed, where: dict[str, str]) -> None:
    feed.send(stored([1], None, prompt(1)[:-1], **where))
    assert feed.depth(prompt(1)) == 0
    assert feed.count("shared") == 1


def test_only_groups_that_keep_whole_prefixes_count(feed: Feed) -> None:
    full = {"group_idx": 0, "kv_cache_spec_kind": "full_attention"}
    window = {"group_idx": 1, "kv_cache_spec_kind": "sliding_window"}
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1], **full))
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1], **window))
    feed.send(stored([3], 2, prompt(3)[:-1], group_idx=1))  # its kind was reported above
    feed.send(removed([1], group_idx=1), removed([1], group_idx=5))
    assert feed.depth(prompt(1, 2, 3)) == 2
    assert feed.count("skipped_groups") == 2


def test_two_full_groups_must_both_hold_a_block(feed: Feed) -> None:
    kind = {"kv_cache_spec_kind": "full_attention"}
    for group in (0, 1):
        feed.send(stored([1, 2], None, prompt(1, 2)[:-1], group_idx=group, **kind))
    feed.send(removed([2], group_idx=1))
    assert feed.depth(prompt(1, 2)) == 1


def test_adapters_and_salts_share_nothing(feed: Feed) -> None:
    tokens = prompt(1, 2)
    lora = {"lora_id": 3, "lora_name": "poet", "extra_keys": [["poet"], ["poet"]]}
    feed.send(stored([1, 2], None, tokens[:-1], **lora))
    assert feed.depth(tokens) == 0
    assert feed.depth(tokens, lora_name="poet") == 2
    feed.send(stored([3, 4], None, tokens[:-1], extra_keys=[["tenant"], None]), url=B)
    assert feed.depth(tokens, B) == 0
    assert feed.depth(tokens, B, cache_salt="tenant") == 2
    assert feed.depth(tokens, B, cache_salt="other") == 0


def test_an_image_separates_from_its_block_on(feed: Feed) -> None:
    image = [None, [["sha-of-image", 2]], None]
    feed.send(stored([1, 2, 3], None, prompt(1, 2, 3)[:-1], extra_keys=image))
    assert feed.depth(prompt(1, 2, 3)) == 1
    assert feed.depth(prompt(1, 2, 3), extra_keys=[None, [("sha-of-image", 2)]]) == 3
    assert feed.depth(prompt(1, 2, 3), extra_keys=[None, [("sha-of-image", 3)]]) == 1


def test_ranks_do_not_complete_one_another(feed: Feed) -> None:
    feed.send(stored([1], None, prompt(1)[:-1]), rank=0)
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1]), removed([1]), rank=1)
    assert feed.depth(prompt(1, 2)) == 1
    feed.send(cleared(), rank=0)
    assert feed.depth(prompt(1, 2)) == 0


def test_an_unknown_parent_is_counted_and_never_a_root(feed: Feed) -> None:
    feed.send(stored([2], 1, prompt(2)[:-1]))
    assert feed.depth(prompt(2)) == 0
    assert feed.count("unknown_parents") == 1
    assert not feed.index.is_exact(A)


def test_a_change_of_block_size_starts_anew(feed: Feed) -> None:
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1]))
    feed.send(stored([1], None, prompt(1, 2)[:-1], block=8))
    assert feed.index.matched(prompt(1, 2), [A]) == [(8, 8, 8)]
    assert feed.index.block_size(A) == 8
    assert feed.count("block_sizes") == 1
    assert feed.index.blocks == 1  # what was held in blocks of 4 is gone


def test_endpoints_of_two_block_sizes_are_asked_at_once(feed: Feed) -> None:
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1]), url=A)
    feed.send(stored([1], None, prompt(1, 2)[:-1], block=8), url=B)
    assert feed.index.matched(prompt(1, 2), [B, "http://c", A, B]) == [
        (8, 8, 8),
        (0, 0, 0),
        (8, 8, 8),
        (8, 8, 8),
    ]


@pytest.mark.parametrize("count", [3, 4, 12, 70, 300])
def test_any_number_of_engines_hold_one_block(feed: Feed, count: int) -> None:
    urls = [f"http://{i}" for i in range(count)]
    for i, url in enumerate(urls):
        depth = 1 + i % 3
        feed.send(stored([1, 2, 3][:depth], None, prompt(1, 2, 3)[: depth * BLOCK]), url=url)
    expected = [(1 + i % 3) * BLOCK for i in range(count)]
    assert [m[2] for m in feed.index.matched(prompt(1, 2, 3), urls)] == expected
    for url in urls[::2]:
        assert feed.index.remove(url)
    expected = [0 if i % 2 == 0 else n for i, n in enumerate(expected)]
    assert [m[2] for m in feed.index.matched(prompt(1, 2, 3), urls)] == expected
    for url in urls[1::2]:
        feed.index.remove(url)
    assert feed.index.blocks == 0


def test_a_removed_endpoint_that_returns_starts_with_nothing(feed: Feed) -> None:
    feed.send(stored([1], None, prompt(1)[:-1]))
    assert feed.index.remove(A)
    assert not feed.index.remove(A)
    feed.send(stored([5], None, prompt(5)[:-1]), url=B)  # takes the row
    assert feed.depth(prompt(1), A) == feed.depth(prompt(1), B) == 0
    feed.next.clear()
    feed.send(stored([2], None, prompt(2)[:-1]))
    assert (feed.depth(prompt(2), A), feed.depth(prompt(5), A)) == (1, 0)


def test_memory_per_block_stays_within_its_bound_and_returns() -> None:
    feed = Feed()
    empty = feed.index.bytes
    rounds = []
    for _ in range(12):
        for i in range(60):
            hashes = list(range(i * 1000, i * 1000 + 1000))
            tokens = [t for h in hashes for t in (h, h, h, h)]
            feed.send(stored(hashes, None, tokens))
            if i == 20:
                assert (feed.index.bytes - empty) / (21 * 1000) <= 64
        rounds.append(feed.index.bytes - empty)
        assert rounds[-1] / 60_000 <= 64
        for i in range(60):
            feed.send(removed(list(range(i * 1000, i * 1000 + 1000))))
        assert feed.index.blocks == 0
        assert feed.index.bytes - empty < 2_000
    assert max(rounds[1:]) <= rounds[0]


def test_a_publisher_beyond_its_share_is_cut_and_not_exact() -> None:
    index = KVIndex(seed=1, max_blocks=100)
    tokens = [t for h in range(150) for t in (h, h, h, h)]
    index.core.live(A, 0, [(0, message(stored(list(range(150)), None, tokens)))], False)
    assert index.matched([*tokens, 1], [A]) == [(400, 400, 400)]
    counters = index.counters(A)
    assert counters is not None
    assert (counters["over_capacity"], counters["exact"]) == (50, False)


@pytest.mark.parametrize(
    "form",
    [list, tuple, lambda t: np.array(t, np.uint32), np.array, lambda t: np.array(t, np.int32)],
)
def test_token_ids_in_any_form(feed: Feed, form: Any) -> None:
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1]))
    assert feed.index.matched(form(prompt(1, 2)), [A]) == [(8, 8, 8)]


@pytest.mark.parametrize("bad", [[1, -1], [2**32], ["a"], [1.5], 7, None, np.array([-1]), "text"])
def test_what_is_no_token_id_is_named(feed: Feed, bad: Any) -> None:
    with pytest.raises(RouteError, match="token_ids"):
        feed.index.matched(bad, [A])
    with pytest.raises(RouteError, match="extra_keys"):
        feed.index.matched([1], [A], extra_keys=[[1.5]])


prompts = st.lists(st.integers(0, 2), min_size=1, max_size=5)
events = st.tuples(
    st.sampled_from(["store"] * 5 + ["remove"] * 3 + ["offload", "clear"]),
    st.sampled_from([A, B]),
    st.sampled_from([0, 0, 0, 1]),  # rank
    st.sampled_from([0, 0, 0, 1]),  # group
    prompts,
    st.integers(0, 4),
    st.sampled_from([None, "GPU", "CPU", "DISK"]),
    st.sampled_from([None, None, "poet"]),
    st.sampled_from([None, None, "salt"]),
    st.sampled_from(["full_attention", None, "sliding_window"]),
    st.booleans(),
)


@given(st.lists(events, max_size=60), st.lists(prompts, min_size=1, max_size=4))
def test_random_histories_agree_with_the_naive_twin(history: list[Any], asked: list[Any]) -> None:
    feed, naive = Feed(), NaiveKV(BLOCK)
    for what, url, rank, group, blocks, skip, medium, lora, salt, kind, old in history:
        salts = [[salt] if salt else None] + [None] * (len(blocks) - 1)
        # An engine's hash stands for one prefix, as a digest does.
        hashes = [hash((lora, salt, tuple(blocks[: i + 1]))) for i in range(len(blocks))]
        skip = min(skip, len(blocks) - 1)
        where = {"group_idx": group, "medium": medium}
        if kind == "sliding_window" and group == 0:
            kind = None
        if what == "store":
            event = stored(
                hashes[skip:],
                hashes[skip - 1] if skip else None,
                prompt(*blocks[skip:])[:-1],
                lora_name=lora,
                extra_keys=salts[skip:],
                kv_cache_spec_kind=kind,
                **where,
            )
        elif what == "remove":
            event = removed(hashes[skip:], **where)
        elif what == "offload":
            event = stored(hashes[skip:], None, [], 0, **where)
        else:
            event = cleared()
        feed.send(event, url=url, rank=rank, old=old)
        naive.apply(url, rank, event)
    for blocks in asked + [h[4] for h in history]:
        for lora, salt in ((None, None), ("poet", None), (None, "salt"), ("poet", "salt")):
            tokens = prompt(*blocks)
            got = feed.index.matched(tokens, [A, B], lora_name=lora, cache_salt=salt)
            extras = [[salt]] if salt else []
            assert got == [naive.matched(tokens, url, lora, extras) for url in (A, B)]


def test_ids_whose_reading_asks_again_are_read(feed: Feed) -> None:
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1]))

    class Again:
        def __iter__(self) -> Any:
            assert feed.depth(prompt(1, 2)) == 2
            return iter(prompt(1, 3))

    assert feed.index.matched(Again(), [A]) == [(4, 4, 4)]
