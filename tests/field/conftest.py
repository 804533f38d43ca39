"""The fixtures of the runner's tests: an audit store and an environment's configuration."""

from __future__ import annotations

from runner.conftest import environment, no_outside_settings, store
from runner.warm import warm_worker

__all__ = ["environment", "no_outside_settings", "store", "warm_worker"]
