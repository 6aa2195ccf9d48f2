"""How much is tried: a little in the suite, much with `make fuzz`."""

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


def budget(few: int) -> settings:
    """`few` examples, or as many as CONVSCOPE_FUZZ says."""
    return settings(max_examples=int(os.environ.get("CONVSCOPE_FUZZ", few)), suppress_health_check=SLOW, deadline=None)
