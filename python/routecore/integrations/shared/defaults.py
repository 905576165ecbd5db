"""The strategy that each host runs where its user named none. The one place to change it.

docs/choosing.md and the hosts' pages name them too; tests/integrations/test_defaults.py compares.
"""

PRODUCTION_STACK = "expected_latency"
"""Of `prefixaware` and `kvaware`; the other routing logics have each an equal of their own."""
RAY_SERVE = "prefix_cache"
"""Serve reports no first tokens, from which engines' speed would be learned."""
LITELLM = "expected_latency"
ENVOY = "prefix_cache"
"""It needs no first tokens, which a picker hears only where it is sent response bodies."""
VERL = "expected_latency"
ELSEWHERE = "expected_latency"
"""Of settings that no host has completed."""
