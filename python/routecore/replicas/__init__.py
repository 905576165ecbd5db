"""Several routers in front of one fleet that route as one.

Each tells the others what it has in flight on every endpoint, and which prefixes engines have
computed for it, and adds what it hears of theirs to its own. One that joins takes over what another
has learned. `Replicas` does that for a table; how the messages travel is a `Channel`: Redis or
Valkey, ZMQ, or Ray.
"""

from routecore.replicas.address import channel_of
from routecore.replicas.channel import Channel
from routecore.replicas.keys import seed_of
from routecore.replicas.replicas import Hints, Peer, Replicas, Traffic

__all__ = ["Channel", "Hints", "Peer", "Replicas", "Traffic", "channel_of", "seed_of"]
