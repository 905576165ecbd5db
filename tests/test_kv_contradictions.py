"""What an index must not believe, or not hold to be complete: one kind of contradiction a test."""

from typing import Any

import msgspec
import pytest
from kv_messages import message, removed, stored
from test_kv_index import BLOCK, A, B, Feed, prompt


@pytest.fixture
def feed() -> Feed:
    return Feed()


def device(feed: Feed, tokens: list[int]) -> int:
    """Blocks of a prompt on the device."""
    return feed.index.matched(tokens, [A])[0][0] // BLOCK


WORDS = list(range(5000, 5040))


def test_chunks_of_a_slower_tier_are_placed_block_by_block(feed: Feed) -> None:
    feed.send(stored(list(range(1, 6)), None, WORDS[:20], medium="GPU"))
    chunks = [
        stored([901], None, WORDS[:16], 16, medium="CPU"),
        stored([902], 901, WORDS[16:32], 16, medium="CPU"),
        stored([903], 902, WORDS[32:38], 6, medium="CPU"),  # cut short: one block and a half
    ]
    feed.send(*chunks)
    assert feed.index.matched(WORDS, [A]) == [(20, 36, 36)]
    assert feed.count("block_sizes") == 0 and feed.index.is_exact(A)
    feed.send(removed([902], medium="CPU"))
    assert feed.index.matched(WORDS, [A]) == [(20, 20, 20)]
    feed.send(removed([903], medium="CPU"), removed([901], medium="CPU"))
    assert (feed.index.blocks, feed.count("unknown_removed")) == (5, 0)


def test_several_chunks_in_one_event_the_last_cut_short(feed: Feed) -> None:
    feed.send(stored([1], None, WORDS[:4]))
    feed.send(stored([901, 902], None, WORDS[:26], 16, medium="CPU"))
    assert feed.index.matched(WORDS, [A]) == [(4, 24, 24)]
    assert feed.index.is_exact(A)


def test_chunks_that_end_within_a_block_are_placed_as_far_as_they_can(feed: Feed) -> None:
    feed.send(stored([1], None, WORDS[:4]))
    feed.send(stored([901, 902], None, WORDS[:12], 6, medium="CPU"))
    assert feed.index.matched(WORDS, [A]) == [(4, 4, 4)]
    assert not feed.index.is_exact(A)  # the rest may be there too


def test_another_block_size_on_the_device_forgets_and_is_no_longer_all_there_is(
    feed: Feed,
) -> None:
    feed.send(stored([1, 2], None, prompt(1, 2)[:-1]))
    assert feed.index.is_exact(A)
    feed.send(stored([3], None, WORDS[:8], 8))
    assert feed.index.matched(WORDS, [A]) == [(8, 8, 8)]
    assert not feed.index.is_exact(A)


def test_blocks_reported_by_hash_only_that_are_not_known_leave_a_partial_view(feed: Feed) -> None:
    feed.send(stored([1], None, prompt(1)[:-1]))
    feed.send(stored([1], None, [], 0, medium="CPU"))
    assert feed.index.is_exact(A)
    feed.send(stored([77], None, [], 0, medium="CPU"))
    assert not feed.index.is_exact(A)


def test_a_salted_block_reported_again_without_its_salt_stays_its_tenants(feed: Feed) -> None:
    tokens = prompt(1, 2)
    feed.send(stored([1, 2], None, tokens[:-1], extra_keys=[["s1"], None]))
    for _ in range(2):
        feed.send(stored([1, 2], None, tokens[:-1], medium="CPU"))
    feed.send(removed([1, 2]))
    assert feed.index.matched(tokens, [A]) == [(0, 0, 0)]
    assert feed.index.matched(tokens, [A], cache_salt="s1") == [(0, 8, 8)]
    assert feed.index.is_exact(A)


def test_a_slower_tiers_prompt_of_unknown_tenant_is_nobodys(feed: Feed) -> None:
    feed.send(stored([1], None, prompt(1)[:-1], extra_keys=[["s1"]]))
    feed.send(stored([9], None, prompt(3)[:-1], medium="CPU"))
    assert feed.index.matched(prompt(3), [A]) == [(0, 0, 0)]
    assert not feed.index.is_exact(A)
    # Where the event says that there is no salt, it is everybody's.
    feed.send(stored([8], None, prompt(4)[:-1], medium="CPU", extra_keys=[None]))
    assert feed.index.matched(prompt(4), [A]) == [(0, 4, 4)]


@pytest.mark.parametrize("shape", ["positional", "map", "map with its own fields"])
def test_sglangs_tenants_are_kept_apart(feed: Feed, shape: str) -> None:
    tokens = prompt(1, 2)
    tenant: dict[str, Any] = {"cache_salt": "s1", "lora_name": "poet"}
    head = ["BlockStored", [1], None, tokens[:4], BLOCK, None, "GPU"]
    if shape == "positional":
        event: Any = [*head, tenant]
    else:
        event = stored([1], None, tokens[:4], medium="GPU")
        event.update({"lora_name": tenant} if shape == "map" else tenant)
    feed.send(event)
    feed.send(stored([2], 1, tokens[4:8]))

    def held(**asked: str) -> int:
        return feed.index.matched(tokens, [A], **asked)[0][0]

    assert held(cache_salt="s1", lora_name="poet") == 8
    assert held() == held(cache_salt="s1") == held(lora_name="poet") == 0


def test_what_a_tenants_map_says_beyond_the_known_names_separates_too(feed: Feed) -> None:
    tokens = prompt(1)
    feed.send(["BlockStored", [1], None, tokens[:4], BLOCK, None, "GPU", {"realm": "x"}])
    assert feed.index.matched(tokens, [A]) == [(0, 0, 0)]
    assert feed.count("malformed") == 0
    feed.send(["BlockStored", [2], None, tokens[:4], BLOCK, None, "GPU", {"cache_salt": None}])
    assert feed.index.matched(tokens, [A]) == [(4, 4, 4)]


def test_pairs_of_a_cache_for_eagle_are_read_as_their_first_tokens(feed: Feed) -> None:
    tokens = prompt(1, 2)
    pairs = [[tokens[i], tokens[i + 1]] for i in range(8)]
    feed.send(stored([1, 2], None, pairs))
    assert feed.index.matched(tokens, [A]) == [(8, 8, 8)]
    feed.send(stored([3], None, [[1, 2], 3, [4, 5], [6, 7]]))
    assert feed.count("malformed") == 1


def test_a_stream_of_two_ranks_is_not_exact(feed: Feed) -> None:
    feed.send(stored([1], None, prompt(1)[:-1]), rank=0)
    assert feed.index.is_exact(A)
    index = feed.index
    payload = message(stored([2], None, prompt(2)[:-1]), rank=1)
    index.core.live(A, 0, [(1, payload)], False)
    assert not index.is_exact(A)
    # One rank under another's number is an engine of an external balancer.
    index.core.live(B, 0, [(0, payload)], False)
    assert index.is_exact(B)


def test_expected_ranks_count_until_they_were_heard(feed: Feed) -> None:
    feed.index.core.expect(A, 2)
    assert not feed.index.is_exact(A)
    feed.send(stored([1], None, prompt(1)[:-1]), rank=0)
    assert not feed.index.is_exact(A)
    feed.send(stored([1], None, prompt(1)[:-1]), rank=1)
    assert feed.index.is_exact(A)


def test_a_rank_that_has_nothing_to_replay_is_idle_beside_one_that_speaks(feed: Feed) -> None:
    core = feed.index.core
    core.expect(A, 2)
    assert core.reconnected(A, 1, True) == 0
    assert core.replay_end(A, 1, True) is None
    assert not feed.index.is_exact(A)  # events may be off
    core.live(A, 0, [(0, message(stored([1], None, prompt(1)[:-1])))], True)
    assert feed.index.is_exact(A)


def test_a_forgotten_cache_is_empty_and_what_follows_counts(feed: Feed) -> None:
    feed.send(stored([1], None, prompt(1)[:-1]))
    feed.index.forget(A)
    assert feed.index.matched(prompt(1), [A]) == [(0, 0, 0)]
    assert feed.index.blocks == 0 and feed.index.is_exact(A)
    feed.send(stored([5], None, prompt(5)[:-1]))
    assert device(feed, prompt(5)) == 1
    feed.index.forget("http://nobody")


def test_a_group_of_another_block_size_leaves_the_first_groups_blocks_but_a_partial_view(
    feed: Feed,
) -> None:
    full = {"kv_cache_spec_kind": "full_attention"}
    feed.send(stored([1], None, prompt(1)[:-1], group_idx=0, **full))
    feed.send(stored([2], None, WORDS[:16], 16, group_idx=1, **full))
    assert device(feed, prompt(1)) == 1
    assert not feed.index.is_exact(A)


def test_unknown_parents_and_batches_of_the_wrong_length_are_partial(feed: Feed) -> None:
    feed.send(stored([1], None, prompt(1)[:-1]))
    feed.send(stored([3], 99, prompt(2)[:-1]))
    assert not feed.index.is_exact(A) and device(feed, prompt(1)) == 1
    other = Feed()
    other.send(stored([1, 2], None, prompt(1)[:-1]))
    assert not other.index.is_exact(A)
    assert msgspec.msgpack.decode(message()) == [1.5, [], 0]
