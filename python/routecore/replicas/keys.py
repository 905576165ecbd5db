"""How the blocks of prompts are named, so that all routers of a group name them alike."""

import hashlib

SEED: int = 0x726F757465636F72
"""What keys of prompt blocks are hashed with where several routers share them and no secret is set.

Everybody can read it here: whoever may send prompts can then make two of them have one key."""


def seed_of(secret: str | None) -> int:
    """What keys are hashed with: the same in all routers with the same secret."""
    if not secret:
        return SEED
    digest = hashlib.blake2b(secret.encode(), digest_size=8, person=b"routecore-keys")
    return int.from_bytes(digest.digest(), "big")


def grain_of(hashing: tuple[int, int, int] | None) -> int:
    """What says in messages how prompts are cut and named, and gives nothing of the secret away.

    Args:
        hashing: Seed, bytes and token ids of a block; None where prompts are not read, or are named
            by a seed that no other router has. Then it is 0, and prefixes are not shared.
    """
    if hashing is None:
        return 0
    text = "/".join(map(str, hashing)).encode()
    digest = hashlib.blake2b(text, digest_size=8, person=b"routecore-cut")
    return int.from_bytes(digest.digest(), "big") or 1
