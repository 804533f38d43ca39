"""One attempt from its first read to its outcome: the container's work, in the order of the modules."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from dbt_runner import (
    __version__,
    admission,
    archive,
    artifacts,
    audit,
    carry_over,
    claim,
    deferral,
    diagnosis,
    identity,
    image,
    lineage,
    metrics,
    openlineage,
    outages,
    outcome,
    pages,
    profile,
    release,
    request,
    resume,
    secret_variables,
    task_metadata,
    worker_spec,
)
from dbt_runner.broker import Broker
from dbt_runner.compute import FARGATE, Compute
from dbt_runner.errors import RUNNER_ERROR, TypedError
from dbt_runner.events import CommandResult, NodeResult, StepReport, WorkerSpec
from dbt_runner.interrupts import Interrupts
from dbt_runner.logs import JsonLog
from dbt_runner.masking import SHORTEST, Mask, too_short
from dbt_runner.node_writer import NodeWriter, ResultsNotWritten
from dbt_runner.outages import PATIENCE_SECONDS, Patience
from dbt_runner.outcome import Outcome
from dbt_runner.parse_cache import ParseCache
from dbt_runner.request import AttemptKey, AttemptRequest
from dbt_runner.store import AlreadyThere, Item, Store, StoredObject, client_config, is_refusal, now
from dbt_runner.supervisor import Supervisor
from dbt_runner.texts import fit

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

# A probe has nothing to put in order, and a driver that is connecting may not hear an interrupt.
_PROBE_GRACE_SECONDS = 2.0
# Holds no artifact, and never will.
_NO_FOLDER = Path(os.devnull)


class Attempt:
    """Runs one attempt of a step, or the health check (position 0).

    Args:
        store: the audit store, with the task role's rights, its clients by `store.client_config`.
        sts: makes a client of STS, by `store.client_config` as well; called only where the warehouse wants a token.
        environment: the container's environment variables.
        compute: where it runs.
    """

    def __init__(self, store: Store, sts: Callable[[], STSClient], environment: Mapping[str, str], compute: Compute = FARGATE) -> None:
        self._patience = Patience(min(PATIENCE_SECONDS, compute.closing_seconds))
        self._store = store.patient(self._patience)
        self._hasty_store = store
        self._sts = sts
        self._environment = environment
        self._compute = compute
        self._report = StepReport()
        # None when there were some, and the bucket did not take them.
        self._artifacts: Sequence[StoredObject] | None = ()
        self._collected: artifacts.Collected | None = None
        self._parse: Mapping[str, str] = {}
        self._concerns: Mapping[str, lineage.Concern] = {}
        self._lineage: openlineage.Sink | None = None
        self._release: release.ReleaseMeta | None = None
        self._state: release.ReleaseMeta | None = None
        self._request: AttemptRequest | None = None
        self._fault: TypedError | None = None
        self._started_at = ""
        self._waits: Mapping[str, float] = {}
        self._nodes: NodeWriter | None = None
        self._interrupts = Interrupts(compute.seconds)
        self._secrets = secret_variables.injected(environment)
        # Folders that are needed until the attempt's end.
        self._left = contextlib.ExitStack()
        self._mask = Mask()
        self._hide([*self._secrets.values(), *identity.control_secrets(environment)])

    def run(self, environment: str, run_key: str, position: int, attempt: int) -> int:
        """Does the work and returns the exit code. The outcome is in the table before this returns.

        Nothing is done, and nothing written, where another container has the attempt.

        Args:
            environment: the environment's name.
            run_key: the run item's sort key.
            position: the step's place in the run, from 1; 0 for the health check.
            attempt: from 1.
        """
        started_at, started = now(), time.monotonic()
        self._started_at = started_at
        log = JsonLog({"environment": environment, "run_key": run_key, "step": position, "attempt": attempt}, mask=self._mask)
        with self._interrupts:
            try:
                with self._interrupts.raising():
                    key, item = request.locate(self._store, environment, run_key, position, attempt)
                    task = self._compute.task or task_metadata.task_arn(self._environment)
                    mine = claim.take(self._store, key, self._compute.name, task, self._compute.lifetime_seconds)
            except Exception as exc:
                # Without a run there is nothing to write the outcome to, without a claim it is another one's: the exit code has to say it.
                error = _typed(exc, log)
                log.error(str(error), why=error.why)
                return error.kind.exit_code
            context = {"run_id": key.run_id, "environment": environment, "step": key.name, "attempt": attempt}
            log = JsonLog(context, mask=self._mask)
            rows = archive.Archive(self._store, key, run_key, item, log)
            with _folder("dbt-runner-") as folder, self._left:
                result = outcome.masked(self._outcome(key, item, rows, folder, log), self._mask)
                seconds = time.monotonic() - started
                try:
                    written = self._evidence(key, mine, result, rows, started_at, seconds)
                except Exception as exc:
                    # The state machine believes an outcome and nothing else: one that says little is better than none.
                    log.error("the outcome could not be put together", error=repr(exc))
                    result = outcome.from_error(_typed(exc, log))
                    written = audit.outcome_item(key, mine, result, audit.Evidence(started_at, now(), seconds, compute=self._compute.name))
                code = self._record(result, written, rows, log)
                self._publish(key, item, result, written, log)
                if self._lineage:
                    self._lineage.close()
        return code

    def _outcome(self, key: AttemptKey, item: Item, rows: archive.Archive, work: Path, log: JsonLog) -> Outcome:
        try:
            with self._interrupts.raising():
                self._request = request.load(self._store, key, item)
                self._waits = self._waited(item, request.check_lock(self._store, self._request))
            if self._request.step is None:
                return self._check(self._request, work, log)
            return self._step(self._request, self._request.step, work, rows, log)
        except Exception as exc:
            return outcome.from_error(_typed(exc, log), self._report)

    def _waited(self, run: Item, lock_since: str | None) -> Mapping[str, float]:
        """How long the container took to start and, once for each run, how long that waited for the lock."""
        assert self._request
        key, checked = self._request.key, self._request.config.health_check_enabled
        first = key.attempt == 1 and key.position == (0 if checked else 1)
        return metrics.waits(
            self._started_at,
            asked_for_at=task_metadata.asked_for_at(self._environment),
            run_started_at=run.get("started_at") if first else None,
            lock_since=lock_since,
        )

    def _step(self, asked: AttemptRequest, step: request.Step, work: Path, rows: archive.Archive, log: JsonLog) -> Outcome:
        with self._interrupts.raising():
            rows.look_back()
            earlier = resume.read(self._store, asked, step.commands)
            # Should this attempt come no further, its outcome still speaks for the whole step.
            self._report = resume.merge(self._report, earlier)
            log.info("fetching release", release=asked.release)
            self._release = admission.admit(self._store, asked, asked.release, "release")
            fetched = self._compute.fetch(self._store, asked.release, work / "project")
            admission.require_same(self._release, fetched)
            if asked.is_on_another_release:
                carried = carry_over.read(self._store, asked, step.commands, fetched.project, work / "resumed", log)
                earlier = resume.read(self._store, asked, step.commands, carried)
                self._report = resume.merge(StepReport(), earlier)
            target = work / "target"
            target.mkdir()
            cache = ParseCache(self._hasty_store, asked, fetched, profile.of_run(asked), target, log, self._mask)
            cache.fetch()
        if earlier:
            done, finished = sum(len(command.done) for command in earlier), sum(command.finished for command in earlier)
            log.info("resuming the step", nodes_done=done, commands_finished=finished)
        not_written = 0
        deadline = time.monotonic() + step.timeout_seconds
        self._nodes = NodeWriter(self._hasty_store, asked.key, log, self._patience)
        try:
            with self._nodes, self._credentials(asked, work, log, fetched.project) as extra:
                environment = {**identity.worker_environment(self._environment, work), **extra}
                # The endpoint's key is a secret variable, which on Lambda only `extra` has.
                self._lineage = openlineage.Sink(asked, {**self._environment, **extra}, target / artifacts.MANIFEST, log)

                def run(spec: WorkerSpec, cache: ParseCache, take: Callable[[NodeResult], None] = lambda _: None) -> StepReport:
                    left, grace = max(0.0, deadline - time.monotonic()), self._compute.grace_seconds
                    return Supervisor(environment, log, self._interrupts, take, left, grace, self._mask, cache).run(spec)

                state = None
                if asked.defer_to is not None:
                    stores = deferral.Stores(self._store, self._hasty_store)
                    state, self._state = deferral.prepare(stores, asked, asked.defer_to, work / "state", log, self._mask, run)
                spec = worker_spec.of_step(asked, step, earlier, work, fetched.project, target, state)
                self._report = resume.merge(run(spec, cache, self._take), earlier)
                self._patience.end_in(self._compute.closing_seconds)
        except ResultsNotWritten as exc:
            not_written = len(exc.results)
        # An attempt that was asked to stop has little time.
        until = time.monotonic() + self._compute.closing_seconds / 2 if self._report.interrupted else math.inf
        kept = self._left.enter_context(_folder("dbt-artifacts-"))
        self._collected = artifacts.collect(target, kept, len(step.commands), self._mask, until)
        if self._collected.left_out:
            log.warning("artifacts were left out", left_out=self._collected.left_out)
        result = outcome.classify(self._report, step.commands, asked.config.warehouse.type, goes_on=step.on_timeout == "fargate")
        try:
            self._artifacts = artifacts.upload(self._store, asked, self._collected)
        except Exception as exc:
            if not outages.is_outage(exc):
                raise
            log.error("the artifacts could not be written", error=repr(exc))
            self._artifacts = None
        self._parse = cache.keep()
        if result.failures:
            skipped = {node.unique_id for node in self._report.nodes.values() if node.status == "skipped"}
            self._concerns = lineage.concerns(kept / artifacts.MANIFEST, (node.unique_id for node in result.failures), skipped)
        return outcome.not_recorded(outcome.without_credential(result, self._fault), not_written, self._artifacts is None)

    def _take(self, node: NodeResult) -> None:
        assert self._nodes and self._lineage  # a step runs
        self._nodes.add(node)
        self._lineage.add(node)

    def _check(self, asked: AttemptRequest, work: Path, log: JsonLog) -> Outcome:
        with self._interrupts.raising():
            self._release = admission.admit(self._store, asked, asked.release, "release")
        project, warehouse = work / "project", asked.config.warehouse
        if warehouse.profile == profile.FROM_PROJECT:
            with self._interrupts.raising():
                fetched = self._compute.fetch(self._store, asked.release, project)
                admission.require_same(self._release, fetched)
                project = fetched.project
        else:
            project.mkdir()
        spec = worker_spec.of_check(asked, work, project)
        with contextlib.ExitStack() as left:
            try:
                extra = left.enter_context(self._credentials(asked, work, log, project))
            except TypedError as exc:
                return outcome.from_error(exc, fault=diagnosis.fault_of_credential(exc))
            environment = {**identity.worker_environment(self._environment, work), **extra}
            timeout = asked.config.health_check_timeout_seconds
            supervisor = Supervisor(environment, log, self._interrupts, lambda _: None, timeout, _PROBE_GRACE_SECONDS, self._mask)
            self._report = supervisor.run(spec)
        return outcome.without_credential(outcome.classify_probe(self._report, warehouse.type), self._fault)

    def _hide(self, values: Iterable[str]) -> None:
        """Masks secrets from now on, also in the form that they have in a text which was made fit for UTF-8."""
        for value in values:
            self._mask.add({value, fit(value)})

    @contextlib.contextmanager
    def _credentials(self, asked: AttemptRequest, work: Path, log: JsonLog, project: Path | None) -> Iterator[dict[str, str]]:
        profile.of_run(asked).write(work / "profiles", project)
        variables = dict(self._compute.variables())
        self._hide(variables.values())
        if short := sorted(name for name, value in {**self._secrets, **variables}.items() if too_short(value)):
            log.warning(f"secret values of less than {SHORTEST} characters are not masked", variables=short)
        with Broker(asked, self._sts, work, log, on_secret=self._mask.add) as broker:
            yield {**variables, **broker.variables}
            self._fault = broker.fault

    def _evidence(
        self, key: AttemptKey, mine: claim.Claim, result: Outcome, rows: archive.Archive, started_at: str, seconds: float
    ) -> Item:
        asked = self._request
        evidence = audit.Evidence(
            started_at=started_at,
            ended_at=now(),
            seconds=seconds,
            commands=[self._mask.text(command.text) for command in asked.step.commands] if asked and asked.step else [],
            # A command that is called done is not run again, and then nothing would make its artifacts.
            results=() if self._artifacts is None else _reported(self._report),
            artifacts=self._artifacts or (),
            peak_memory_mib=self._report.peak_memory_mib,
            versions=_versions(asked),
            compute=self._compute.name,
            parse=self._parse,
            release=self._release,
            state=self._state,
            image=image.digest(self._environment),
            node_rows=rows.prepare(self._nodes.items if self._nodes else ()),
            warnings=self._report.warnings,
            left_out=[
                *(self._nodes.left_out if self._nodes else ()),
                *self._report.left_out,
                *(self._collected.left_out if self._collected else ()),
            ],
            concerns=self._concerns,
        )
        return audit.outcome_item(key, mine, result, evidence)

    def _record(self, result: Outcome, item: Item, rows: archive.Archive, log: JsonLog) -> int:
        """Writes the outcome, first to the table, and returns the exit code."""
        self._patience.end_in(self._compute.closing_seconds)
        sizes = self._request.config.compute.get("sizes") or [] if self._request else []
        try:
            item = self._put(item, log)
        except Exception as exc:
            # The exit code is the last way to say it; it must not say that all is well. The log keeps the rest, and so does the bucket,
            # where the attempt has not become another container's.
            log.error("the outcome could not be written", error=repr(exc)[:1000], outcome=item)
            if not isinstance(exc, AlreadyThere):
                rows.write(item, sizes)
            return result.exit_code or _typed(exc, log).kind.exit_code
        days = self._request.config.items_retention_days if self._request else 0
        if rows.write(item, sizes) and days:
            try:
                audit.let_expire(self._store, item, self._nodes.items if self._nodes else (), days)
            except Exception as exc:
                log.warning("items of this attempt stay in the table for ever", error=repr(exc))
        if self._request:
            log.info("metrics", **metrics.of_attempt(self._request.config, self._request.job, item, self._waits))
        if result.error:
            log.error(f"{result.error.name}: {result.message}", why=result.why, exit_code=result.exit_code)
        else:
            log.info("succeeded", counts=item["counts"], seconds=item["seconds"])
        return result.exit_code

    def _put(self, item: Item, log: JsonLog) -> Item:
        """Writes the outcome and returns it as it was written: without its details where DynamoDB refuses them."""
        try:
            self._store.put(item, only_over="holder")
        except Exception as exc:
            if not is_refusal(exc):
                raise
            log.error("DynamoDB refuses the outcome: what decides over the run is written", error=repr(exc)[:1000], outcome=item)
            item = audit.reduced(item, str(exc))
            self._store.put(item, only_over="holder")
        return item

    def _publish(self, key: AttemptKey, run: Item, result: Outcome, written: Item, log: JsonLog) -> None:
        """Writes what people open. No failure of it fails an attempt, and a signal breaks it off: the outcome has been written."""
        if self._request is None:
            return
        ending = pages.Ending(key, self._request.config, run, result, written, self._collected.folder if self._collected else _NO_FOLDER)
        missing = []
        for name, publish in (("documentation", pages.publish_documentation), ("report", pages.publish_report)):
            try:
                with self._interrupts.raising():
                    for page in publish(self._hasty_store, ending):
                        log.info("published", key=page)
            except Exception as exc:
                log.warning("a page could not be published", page=name, error=repr(exc))
                missing.append(name)
        if missing:
            try:
                audit.record_unpublished(self._hasty_store, written, missing)
            except Exception as exc:
                log.warning("the outcome does not say which pages are missing", pages=missing, error=repr(exc))


@contextlib.contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    """A new folder with a name of its own, which goes with all that is in it."""
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _typed(exc: Exception, log: JsonLog) -> TypedError:
    error = exc if isinstance(exc, TypedError) else outages.typed(exc)
    if error is None:
        log.error("the runner failed", error=repr(exc))
        error = TypedError(RUNNER_ERROR, f"{type(exc).__name__}: {exc}", "an exception that the runner does not expect")
    return error


def _reported(report: StepReport) -> Sequence[CommandResult]:
    return sorted(report.commands, key=lambda result: result.index)


def _versions(asked: AttemptRequest | None) -> dict[str, str]:
    packages = ["dbt-core"] + ([f"dbt-{asked.config.warehouse.type}"] if asked else [])
    versions = {"dbt-runner": __version__}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def from_container(environment: Mapping[str, str] | None = None) -> int:
    """The container's entry point: reads the variables that the task definition and the state machine set.

    Returns:
        The exit code.

    Raises:
        TypedError: Dbt.RunnerError when a variable is missing: this is not a task of the state machine.
    """
    import boto3

    own = os.environ if environment is None else environment
    try:
        table, bucket, name = own["DBT_RUNNER_TABLE"], own["DBT_RUNNER_BUCKET"], own["DBT_RUNNER_ENVIRONMENT"]
        run_key, position, attempt = own["DBT_RUNNER_RUN_KEY"], int(own["DBT_RUNNER_STEP"]), int(own["DBT_RUNNER_ATTEMPT"])
    except (KeyError, ValueError) as exc:
        raise TypedError(
            RUNNER_ERROR, f"{exc} is missing or wrong: this command is called by the state machine; people use dbt-runner start"
        ) from exc
    identity.hide()
    session = boto3.Session()
    store = Store(session.client("dynamodb", config=client_config()), session.client("s3", config=client_config()), table, bucket)
    return Attempt(store, lambda: session.client("sts", config=client_config()), own).run(name, run_key, position, attempt)
