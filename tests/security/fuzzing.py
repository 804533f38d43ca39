"""How many examples a property test in this folder tries: few in the default run, many with `make security`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = int(os.environ.get("SECURITY_EXAMPLES", "0"))


def bounded(default: int) -> settings:
    """Settings for `@bounded(200)`: `default` examples, or SECURITY_EXAMPLES where that is set. No deadline: timings are no test.

    Failures are not stored on disk, and the default run is the same every time.
    """
    return settings(
        max_examples=_EXAMPLES or default,
        deadline=None,
        database=None,
        derandomize=not _EXAMPLES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
    )
