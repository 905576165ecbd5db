"""verl: any strategy as the router of the rollout, by configuration alone.

    actor_rollout_ref.rollout.router_config_path: router.yaml

    router_class: routecore.integrations.verl.RoutecoreRouter
    strategy: expected_latency

Read `router.py` first: what verl calls, in its actor. `open_calls.py` has what was acquired and not
released, `settings.py` the keys of the file.
"""

from routecore.integrations.verl.router import RoutecoreRouter

__all__ = ["RoutecoreRouter"]
