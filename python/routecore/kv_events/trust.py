"""Says when an engine's KV events are no longer believed, or are again."""

import logging

from routecore.kv_events.index import KVIndex

_LOG = logging.getLogger("routecore.kv_events")

_WHY = {
    "overstated": (
        "they promise more than `usage` says was cached: removals are lost, another engine "
        "publishes there, or tenants share there what the engine keeps apart"
    ),
    "understated": (
        "`usage` says that more was cached than they promise: tokenizer or chat template are not "
        "the engine's"
    ),
    "never_match": (
        "they match nothing that was sent there: tokenizer or chat template are not the engine's, "
        "or its events are another engine's"
    ),
}


def tell(url: str, verdict: str) -> None:
    """Note it in every index that hears the endpoint, and log it in one line."""
    believed = verdict == "believed"
    if not KVIndex.note_trust(url, believed):
        return
    if believed:
        _LOG.info("KV events of %s are believed again: their promises are kept", url)
    else:
        _LOG.warning(
            "KV events of %s are no longer believed; it goes by what was sent there. Likely cause: "
            "%s. `routecore kv-events check %s` shows more",
            url,
            _WHY[verdict],
            url,
        )
