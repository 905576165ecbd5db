"""verl's router: microseconds of `acquire_server` and `release_server` together, in the actor.

    python benches/hosts/bench_verl.py [--servers 64] [--tokens 2048]

Where Ray is installed, its metrics are counted, as in the actor; Ray's own call is not measured.
"""

import argparse
import logging
import random
import statistics
import time
from collections import deque

from routecore.integrations.verl import RoutecoreRouter

CALLS, IN_FLIGHT = 6000, 1024


def measured(strategy: str, servers: int, tokens: int) -> list[float]:
    """Of each call: 16 prompts share three quarters of their tokens; 1,024 calls are in flight."""
    draws = random.Random(1)
    router = RoutecoreRouter(
        {f"10.0.{at // 256}.{at % 256}:8000": at for at in range(servers)},
        {"strategy": strategy, "seed": 1},
    )
    heads = [draws.choices(range(150_000), k=tokens * 3 // 4) for _ in range(16)]
    prompts = [head + draws.choices(range(150_000), k=tokens // 4) for head in heads * 32]
    open_calls: deque[tuple[str, str]] = deque()
    found = []
    for number in range(CALLS):
        prompt, request = prompts[number % len(prompts)], str(number)
        start = time.perf_counter()
        server, _ = router.acquire_server(request_id=request, prompt_ids=prompt)
        took = time.perf_counter() - start
        open_calls.append((server, request))
        if len(open_calls) > IN_FLIGHT:
            server, request = open_calls.popleft()
            start = time.perf_counter()
            router.release_server(server_id=server, request_id=request)
            found.append(1e6 * (took + time.perf_counter() - start))
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--servers", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=2048)
    given = parser.parse_args()
    logging.disable()
    try:
        import ray
    except ImportError:
        where = "without Ray"
    else:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
        where = f"Ray {ray.__version__}'s metrics"
    for strategy in ("expected_latency", "prefix_cache", "least_connections"):
        took = measured(strategy, given.servers, given.tokens)
        most = took[len(took) * 9 // 10]
        print(
            f"{strategy}: median {statistics.median(took):.1f} us, 90 % within {most:.1f} "
            f"({given.servers} servers, {given.tokens} ids, {where})"
        )


if __name__ == "__main__":
    main()
