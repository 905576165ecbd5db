"""Where the stand-in for production-stack is, and whether the real one is there."""

import importlib.machinery
import sys
from pathlib import Path

STAND_INS = Path(__file__).parent / "stand_ins"


def real_host() -> bool:
    """Whether production-stack's own router can be run by this Python."""
    places = [place for place in sys.path if Path(place) != STAND_INS]
    found = importlib.machinery.PathFinder.find_spec("vllm_router", places)
    roots = found.submodule_search_locations if found is not None else None
    return any((Path(root) / "routers" / "routing_logic.py").exists() for root in roots or ())
