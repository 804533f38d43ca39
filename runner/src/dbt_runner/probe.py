"""The light health check inside the worker: one connection by dbt's own adapter, one `select 1`, and what dbt will need besides.

It goes through the same profile, adapter and credentials as the run, but reads no project: three quarters of
the processor time of `dbt debug` on DuckDB.
"""

from __future__ import annotations

import contextlib
import os
from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace

from dbt_runner.events import WorkerSpec
from dbt_runner.warehouses import ADAPTERS
from dbt_runner.warehouses.inquiry import Inquiry


def probe(spec: WorkerSpec, passed: Callable[[], None]) -> None:
    """Connects and asks, in the stages of dbt_runner.diagnosis.

    Args:
        passed: called at the end of each stage.

    Raises:
        NeedNotMet: the warehouse says no to what dbt will need, see Adapter.ask.
        Exception: the adapter's or the driver's own; outcome.py knows what they mean.
    """
    from dbt.adapters.factory import get_adapter_class_by_name, load_plugin
    from dbt.config.profile import Profile
    from dbt.config.renderer import ProfileRenderer
    from dbt.flags import set_from_args
    from dbt.mp_context import get_mp_context
    from dbt_common.context import set_invocation_context

    # A profile of the project's own may ask for variables; a command of dbt's sets them itself.
    set_invocation_context(os.environ)
    arguments = Namespace(
        profiles_dir=spec.profiles, project_dir=spec.project, profile=spec.profile, target=spec.target, vars={}, threads=1
    )
    set_from_args(arguments, None)
    profile = Profile.render(
        ProfileRenderer({}), spec.profile, profile_name_override=spec.profile, target_override=spec.target, threads_override=1
    )
    load_plugin(profile.credentials.type)
    adapter = get_adapter_class_by_name(profile.credentials.type)(
        # What dbt.adapters.contracts.connection.AdapterRequiredConfig asks for.
        SimpleNamespace(
            credentials=profile.credentials,
            profile_name=profile.profile_name,
            target_name=profile.target_name,
            threads=1,
            project_name="health_check",
            query_comment=None,
            cli_vars={},
            target_path=spec.artifacts,
            log_cache_events=False,
            to_target_dict=profile.to_target_dict,
        ),
        get_mp_context(),
    )
    refused: Exception | None = None
    try:
        with adapter.connection_named("health_check"):
            try:
                # A lazy handle opens when it is looked at.
                _ = adapter.connections.get_thread_connection().handle
                passed()
                adapter.execute("select 1 as ok", fetch=True)
                passed()
                ADAPTERS[profile.credentials.type].ask(Inquiry(adapter, profile.credentials))
                passed()
            except Exception as exc:
                refused = exc
                raise
    except Exception:
        if refused is None:
            raise
    finally:
        with contextlib.suppress(Exception):
            adapter.cleanup_connections()
    if refused is not None:
        # Not what came of it: some adapters cannot close what never was open (BigQuery's is one), and then say only that.
        raise refused
