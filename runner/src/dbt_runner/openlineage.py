"""What ran and which data it read and wrote, as OpenLineage events for Marquez, DataHub and others, where a team has such an endpoint.

Out of band: events are sent by a thread of their own while the run goes on, and the rest of them for a few seconds when the outcome has
been written. An endpoint that does not answer is left alone, and nothing of a run depends on it.
https://openlineage.io/docs/spec/object-model
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from dbt_runner import __version__, untrusted_files
from dbt_runner.config import Warehouse
from dbt_runner.events import BAD_STATUSES, NodeResult
from dbt_runner.lineage import Lineage, ManifestNode, from_manifest
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptRequest

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

URL = "OPENLINEAGE_URL"
API_KEY = "OPENLINEAGE_API_KEY"
"""The variables that the standard's own client reads; a team gives the key as one of the environment's `secrets`."""
PRODUCER = f"dbt-runner/{__version__}"
CLOSING_SECONDS = 5.0
_TIMEOUT_SECONDS = 2.0
# So many in a row that could not be sent, and the endpoint is taken to be away for the rest of the attempt.
_MOST_FAILURES = 3
_EXECUTED = frozenset({"model", "seed", "snapshot", "test", "unit_test", "source"})

Send = Callable[["RunEvent"], None]


class Sink:
    """Sends an event for the beginning and the end of every node. Without an endpoint it does nothing.

    Args:
        asked: the attempt.
        environment: the container's environment variables.
        manifest: where dbt writes its manifest.json when it has parsed.
        log: for what could not be sent.
        send: instead of the standard's own client.
    """

    def __init__(
        self, asked: AttemptRequest, environment: Mapping[str, str], manifest: Path, log: JsonLog, send: Send | None = None
    ) -> None:
        self._asked = asked
        self._manifest = manifest
        self._log = log
        self._lineage: Lineage | None = None
        self._queue: queue.SimpleQueue[NodeResult | None] = queue.SimpleQueue()
        self._failures = 0
        self._send = send or _client(environment, log)
        self._thread: threading.Thread | None = None
        if self._send is not None:
            self._thread = threading.Thread(target=self._run, name="openlineage", daemon=True)
            self._thread.start()

    def add(self, result: NodeResult) -> None:
        """Takes a node's result; returns at once."""
        if self._thread is not None and result.resource_type in _EXECUTED and result.status != "skipped":
            self._queue.put(result)

    def close(self, seconds: float = CLOSING_SECONDS) -> None:
        """Sends what is left, for so long at the most.

        Args:
            seconds: after which the rest is dropped.
        """
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._log.warning("lineage events were dropped: the endpoint is slow", at_least=self._queue.qsize())

    @property
    def _away(self) -> bool:
        return self._failures >= _MOST_FAILURES

    def _run(self) -> None:
        assert self._send is not None
        while (result := self._queue.get()) is not None:
            try:
                for event in () if self._away else self._events(result):
                    self._send(event)
                    self._failures = 0
            except Exception as exc:
                self._failures += 1
                text = "the lineage endpoint does not answer: no more events" if self._away else "a lineage event could not be sent"
                self._log.warning(text, error=repr(exc), node=result.unique_id)

    def _events(self, result: NodeResult) -> Iterator[RunEvent]:
        from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import error_message_run, job_type_job, parent_run

        asked = self._asked
        namespace = f"dbt/{asked.config.name}/{asked.key.environment}"
        parent = parent_run.ParentRunFacet(
            run=parent_run.Run(runId=str(uuid5(NAMESPACE_URL, asked.execution))),
            job=parent_run.Job(namespace=namespace, name=f"{asked.job or 'run'}.{asked.key.name}"),
        )
        facets: dict[str, Any] = {"parent": parent}
        kind = job_type_job.JobTypeJobFacet(processingType="BATCH", integration="DBT", jobType=result.resource_type.upper())
        job = Job(namespace=namespace, name=result.unique_id, facets={"jobType": kind})
        run_id = str(uuid5(NAMESPACE_URL, f"{asked.execution}/{asked.key.name}/{asked.key.attempt}/{result.command}/{result.unique_id}"))
        where = dataset_namespace(asked.config.warehouse, asked.config.region)
        inputs = [InputDataset(namespace=where, name=name) for name in self._inputs(result)]
        outputs = [OutputDataset(namespace=where, name=name) for name in _names(result.relation)] if result.resource_type != "test" else []
        yield RunEvent(
            eventTime=result.started_at or result.ended_at,
            producer=PRODUCER,
            run=Run(runId=run_id, facets=dict(facets)),
            job=job,
            eventType=RunState.START,
            inputs=inputs,
        )
        failed = result.status in BAD_STATUSES
        if failed:
            facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(message=result.message[:4000], programmingLanguage="SQL")
        yield RunEvent(
            eventTime=result.ended_at or result.started_at,
            producer=PRODUCER,
            run=Run(runId=run_id, facets=facets),
            job=job,
            eventType=RunState.FAIL if failed else RunState.COMPLETE,
            inputs=inputs,
            outputs=outputs,
        )

    def _inputs(self, result: NodeResult) -> Iterator[str]:
        if self._lineage is None:
            manifest = untrusted_files.read_object(self._manifest)
            if not manifest:
                # An event without inputs would say that the node reads nothing.
                raise ValueError(f"{self._manifest.name} cannot be read")
            self._lineage = from_manifest(manifest)
        node = self._lineage.get(result.unique_id)
        for parent in node.parents if node else ():
            yield from _names(_relation(self._lineage.get(parent)))


def dataset_namespace(warehouse: Warehouse, region: str) -> str:
    """The namespace of a warehouse's datasets.

    Source: https://openlineage.io/docs/spec/naming

    Args:
        warehouse: of the environment.
        region: of the deployment, where the settings name none.
    """
    settings = warehouse.settings
    match warehouse.type:
        case "snowflake":
            return f"snowflake://{settings.get('account', '')}"
        case "bigquery":
            return "bigquery"
        case "athena":
            return f"awsathena://athena.{settings.get('region_name') or region}.amazonaws.com"
        case "redshift":
            return f"redshift://{settings.get('host', '')}:{settings.get('port', 5439)}"
        case "postgres":
            return f"postgres://{settings.get('host', '')}:{settings.get('port', 5432)}"
        case other:
            return f"{other}://{settings.get('path', '')}"


def _relation(node: ManifestNode | None) -> str:
    return node.relation if node else ""


def _names(relation: str) -> Iterator[str]:
    """A relation's name without its quotes; none for what has no relation."""
    if relation:
        yield relation.replace('"', "").replace("`", "")


def _client(environment: Mapping[str, str], log: JsonLog) -> Send | None:
    """The standard's own client, without its retries: the next event is the next try."""
    url = environment.get(URL)
    if not url:
        return None
    try:
        from openlineage.client import OpenLineageClient
        from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport

        config = HttpConfig(url=url, timeout=_TIMEOUT_SECONDS, retry={"total": 0})
        if key := environment.get(API_KEY):
            config.auth = ApiKeyTokenProvider({"apiKey": key})
        client = OpenLineageClient(transport=HttpTransport(config))
    except Exception as exc:
        # No lineage is no reason to run nothing.
        log.warning(f"no lineage events: {URL} cannot be used", error=repr(exc))
        return None
    return client.emit
