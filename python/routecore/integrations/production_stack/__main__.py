"""`python -m routecore.integrations.production_stack`: the host's command with our strategies.

Takes the host's own flags, and those below.
"""

import argparse
import json
import os
import sys
from typing import Any

from routecore.errors import RouteError
from routecore.integrations.shared.settings import parameters

_CALLBACKS = "routecore.integrations.production_stack.callbacks"
# A request whose connection is refused goes to another engine, once; the host's default is never.
_FAILOVER = "--max-instance-failover-reroute-attempts"


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m routecore.integrations.production_stack",
        description="production-stack's router with a strategy of routecore; its flags follow.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument("--strategy", help="a word of `routecore strategies`")
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="of the strategy"
    )
    parser.add_argument("--mode", choices=["active", "shadow"])
    parser.add_argument("--config", metavar="FILE", help="TOML or YAML, instead of these flags")
    parser.add_argument("--shadow-file", metavar="FILE", help="records of shadow mode")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Set the settings up, put our classes in place, and run the host."""
    parser = _arguments()
    ours, theirs = parser.parse_known_args(argv)
    if "-h" in theirs or "--help" in theirs:
        parser.print_help()
    try:
        from routecore.integrations.production_stack import install, settings

        theirs = _routing_logic(theirs)
        _to_environment(ours)
        install.names(settings.load())
    except RouteError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    if not _has(theirs, "--callbacks"):
        theirs += ["--callbacks", _CALLBACKS]
    if not _has(theirs, _FAILOVER):
        theirs += [_FAILOVER, "1"]
    sys.argv = [sys.argv[0], *theirs]
    import vllm_router.app  # type: ignore[import-not-found]  # after our classes are in place

    vllm_router.app.main()


def _to_environment(ours: argparse.Namespace) -> None:
    chosen = {
        "ROUTECORE_STRATEGY": ours.strategy,
        "ROUTECORE_MODE": ours.mode,
        "ROUTECORE_CONFIG": ours.config,
        "ROUTECORE_SHADOW_FILE": ours.shadow_file,
    }
    params: dict[str, Any] = {}
    for param in ours.param:
        params |= parameters(param, "--param")
    if params:
        chosen["ROUTECORE_PARAMS"] = json.dumps(params)
    os.environ.update({name: value for name, value in chosen.items() if value is not None})


def _routing_logic(theirs: list[str]) -> list[str]:
    """The host's flags with a routing logic that it knows and that hands us the body."""
    from routecore.integrations.production_stack import host
    from routecore.integrations.production_stack.decision import EQUALS
    from routecore.integrations.production_stack.routers import NO_BETA

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--routing-logic", default="prefixaware")
    parser.add_argument("--loadaware-beta")
    found, others = parser.parse_known_args(theirs)
    logic = found.routing_logic
    if logic == "loadaware" and not hasattr(host.routing_logic, "LoadAwareRouter"):
        # Hosts before it get what it stands for in the place of the nearest that they have.
        os.environ.setdefault("ROUTECORE_STRATEGY", EQUALS[logic])
        logic = "prefixaware"
        if found.loadaware_beta is not None:
            strategy = os.environ["ROUTECORE_STRATEGY"]
            print(NO_BETA % (found.loadaware_beta, strategy), file=sys.stderr)
    elif found.loadaware_beta is not None:
        others += ["--loadaware-beta", found.loadaware_beta]
    return [*others, "--routing-logic", logic]


def _has(arguments: list[str], flag: str) -> bool:
    return any(a == flag or a.startswith(flag + "=") for a in arguments)


if __name__ == "__main__":
    main()
