"""DynamoDB throttles and S3 answers 5xx for a while, over real HTTP: the attempt succeeds or says why not, and the record is right.

Where dbt does not matter, a script takes the worker's place (runner.projects.scripted).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from dbt_runner import outages
from dbt_runner.attempt import Attempt
from dbt_runner.compute import Compute
from dbt_runner.errors import ACCESS_DENIED, INTERRUPTED, MODEL_ERROR, RUNNER_ERROR, WAREHOUSE_UNAVAILABLE, ErrorKind
from dbt_runner.outages import Patience
from dbt_runner.outcome import Outcome, not_recorded
from dbt_runner.store import Store, client_config
from faults import project
from faults.broken_aws import BrokenAws
from faults.containers import ENVIRONMENT, Run, aws
from runner import projects
from runner.attempts import publish
from runner.conftest import BUCKET, TABLE

BOTH = ("DynamoDB", "S3")
EVERYTHING = pytest.mark.parametrize("broken", [BOTH, ("DynamoDB",), ("S3",)], ids="+".join)

pytestmark = pytest.mark.xdist_group("outages")


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, str]]:
    with aws(tmp_path_factory.mktemp("aws")) as found:
        publish(found[0], tmp_path_factory.mktemp("release") / "project", projects.SLOW)
        yield found


@pytest.fixture
def broken_aws(audit: tuple[Store, str]) -> Iterator[BrokenAws]:
    with BrokenAws(audit[1]).serving() as proxy:
        yield proxy


# --- how long it is tried ----------------------------------------------------------------------------------------------


def client_error(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutItem")  # type: ignore[typeddict-item]


THROTTLED = client_error("ThrottlingException", 400)


class Clock:
    """Time that passes only by waiting, and always waits as long as it may."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def patience(self, seconds: float = 60.0) -> Patience:
        return Patience(seconds, clock=lambda: self.now, sleep=self.sleep, random=lambda: 1.0)

    def until(self, seconds: float) -> Callable[[], float]:
        """A call that fails until then, and returns when it succeeded."""

        def call() -> float:
            if self.now < seconds:
                raise THROTTLED
            return self.now

        return call


def test_an_outage_of_thirty_seconds_is_waited_for() -> None:
    clock = Clock()
    assert 30 <= clock.patience()(clock.until(30)) < 40
    assert clock.waits[:7] == [0.25, 0.5, 1, 2, 4, 8, 8]


def test_an_outage_that_does_not_end_is_raised_in_time_after_one_last_try() -> None:
    clock, patience = Clock(), Clock()
    with pytest.raises(ClientError):
        clock.patience()(clock.until(10_000))
    assert clock.now == 60
    assert clock.patience()(clock.until(119)) == 120, "each call has its own time"
    together = patience.patience()
    together.end_in(20)
    together.end_in(500)
    with pytest.raises(ClientError):
        together(patience.until(10_000))
    with pytest.raises(ClientError):
        together(patience.until(10_000))
    assert patience.now == 20, "or all have one"


def test_what_is_no_outage_is_raised_at_once() -> None:
    clock = Clock()
    for exc in (client_error("ValidationException", 400), ValueError("a bug"), client_error("AccessDeniedException", 400)):

        def fail(exc: Exception = exc) -> None:
            raise exc

        with pytest.raises(type(exc)):
            clock.patience()(fail)
    assert clock.waits == []


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (THROTTLED, INTERRUPTED),
        (client_error("ProvisionedThroughputExceededException", 400), INTERRUPTED),
        (client_error("SlowDown", 503), INTERRUPTED),
        (client_error("SomethingNew", 500), INTERRUPTED),
        (EndpointConnectionError(endpoint_url="https://x"), INTERRUPTED),
        (client_error("AccessDeniedException", 400), ACCESS_DENIED),
        (client_error("Forbidden", 403), ACCESS_DENIED),
        (client_error("ValidationException", 400), None),
        (ValueError("a bug"), None),
    ],
)
def test_what_aws_says_is_a_typed_error(exc: Exception, kind: ErrorKind | None) -> None:
    error = outages.typed(exc)
    assert (error.kind if error else None) is kind


@pytest.mark.parametrize(
    ("own", "results", "artifacts", "kind"),
    [
        (None, 0, True, INTERRUPTED),
        (None, 3, False, RUNNER_ERROR),
        (None, 3, True, RUNNER_ERROR),
        (WAREHOUSE_UNAVAILABLE, 0, True, INTERRUPTED),
        (WAREHOUSE_UNAVAILABLE, 3, False, RUNNER_ERROR),
        (MODEL_ERROR, 3, True, MODEL_ERROR),
    ],
)
def test_an_attempt_is_repeated_only_where_nothing_would_be_executed_twice(
    own: ErrorKind | None, results: int, artifacts: bool, kind: ErrorKind
) -> None:
    outcome = not_recorded(Outcome(own, "own words" if own else ""), results, artifacts)
    assert outcome.error is kind
    assert ("3 node results" in outcome.message, "the artifacts" in outcome.message) == (results > 0, artifacts)
    assert ("own words" in outcome.message) is (own is not None)
    assert not_recorded(Outcome(None), 0, False).error is None


# --- attempts in this process: outages for as long as it takes ------------------------------------------------------------


class Story:
    """An attempt behind the proxy whose worker is a script, and what it left."""

    def __init__(self, audit: tuple[Store, str], proxy: BrokenAws, folder: Path, run_id: str, *, closing_seconds: float = 60.0) -> None:
        self.proxy = proxy
        self.folder = folder
        self.run = Run(audit[0], proxy.endpoint, run_id, folder / "warehouse.duckdb")
        self.closing_seconds = closing_seconds

    def attempt(self, script: str, number: int = 1) -> int:
        clients = [
            boto3.client(
                service,  # type: ignore[call-overload]
                endpoint_url=self.proxy.endpoint,
                region_name="us-east-1",
                aws_access_key_id="test",
                aws_secret_access_key="test",
                # The clients' own tries are those of the containers below.
                config=client_config().merge(Config(retries={"total_max_attempts": 1})),
            )
            for service in ("dynamodb", "s3")
        ]
        environment = projects.scripted(self.folder / f"worker-{number}", _SAYS + script)
        store = Store(clients[0], clients[1], TABLE, BUCKET)
        attempt = Attempt(store, lambda: pytest.fail("nothing here needs STS"), environment, Compute(closing_seconds=self.closing_seconds))
        return attempt.run(ENVIRONMENT, self.run.key, 1, number)

    @contextlib.contextmanager
    def meanwhile(self, *acts: Callable[[], None]) -> Iterator[None]:
        """Does this while the attempt runs, one after the other."""

        def all_of_them() -> None:
            for act in acts:
                act()

        thread = threading.Thread(target=all_of_them)
        thread.start()
        yield
        thread.join()

    def breaks_at(self, point: str, *what: str) -> Callable[[], None]:
        """Begins an outage as soon as the worker is at that point, and lets it go on only then."""

        def act() -> None:
            projects.wait_until(lambda: (self.folder / point).exists())
            self.proxy.breaks(*what)
            (self.folder / f"{point}.seen").touch()

        return act

    def mends_after(self, refusals: int) -> Callable[[], None]:
        """Ends the outage when so many requests have met it."""

        def act() -> None:
            projects.wait_until(lambda: self.proxy.refused.total() >= refusals)
            self.proxy.breaks()

        return act

    @property
    def statuses(self) -> dict[str, str]:
        return {unique_id: item["status"] for unique_id, item in self.run.nodes().items()}


# A worker that tells the test where it stands.
_SAYS = """
folder = os.path.dirname(os.environ["PYTHONPATH"])

def at(point):
    open(os.path.join(folder, point), "w").close()
    while not os.path.exists(os.path.join(folder, point + ".seen")):
        time.sleep(0.01)

def artifacts():
    open(os.path.join(spec["artifacts"], "run_results.json"), "w").write("{}")

"""
ENDS_WELL = "node('a')\nartifacts()\nat('end')\ndone()\n"


@EVERYTHING
@pytest.mark.parametrize("moment", ["start", "end"])
def test_an_outage_that_passes_is_not_noticed(
    audit: tuple[Store, str], broken_aws: BrokenAws, tmp_path: Path, broken: tuple[str, ...], moment: str
) -> None:
    story = Story(audit, broken_aws, tmp_path, f"{moment}-{'-'.join(broken)}")
    if moment == "start":
        broken_aws.breaks(*broken)
        acts = [story.mends_after(4), story.breaks_at("end")]
    else:
        acts = [story.breaks_at("end", *broken), story.mends_after(4)]
    with story.meanwhile(*acts):
        assert story.attempt(ENDS_WELL) == 0
    assert broken_aws.refused.total() >= 4
    outcome = story.run.outcome(1)
    assert outcome is not None and (outcome["exit_code"], outcome["counts"]) == (0, {"success": 1})
    assert outcome["artifacts"][0]["key"].endswith("/run_results.json")
    assert story.statuses == {"a": "success"}


def test_an_outage_while_dbt_runs_delays_results_and_nothing_else(audit: tuple[Store, str], broken_aws: BrokenAws, tmp_path: Path) -> None:
    story = Story(audit, broken_aws, tmp_path, "mid-run")
    with story.meanwhile(story.breaks_at("middle", "DynamoDB"), story.mends_after(1), story.breaks_at("end")):
        assert story.attempt("node('a')\nat('middle')\nnode('b')\nartifacts()\nat('end')\nnode('c')\ndone()\n") == 0
    assert story.statuses == dict.fromkeys("abc", "success")


def test_an_outage_at_the_start_that_does_not_pass_is_an_interruption(
    audit: tuple[Store, str], broken_aws: BrokenAws, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = Story(audit, broken_aws, tmp_path, "start-for-ever", closing_seconds=0.3)
    broken_aws.breaks("DynamoDB")
    assert story.attempt(ENDS_WELL) == INTERRUPTED.exit_code, "the state machine reads the exit code where there is no outcome"
    assert story.run.outcome(1) is None
    assert "Dbt.Interrupted: AWS did not answer" in capsys.readouterr().out
    broken_aws.breaks("S3")
    assert story.attempt(ENDS_WELL) == INTERRUPTED.exit_code
    outcome = story.run.outcome(1)
    assert outcome is not None and outcome["error"] == "Dbt.Interrupted"
    assert not (tmp_path / "end").exists(), "dbt was not started"


def test_results_that_the_table_never_took_are_in_the_log_and_keep_the_step_from_running_again(
    audit: tuple[Store, str], broken_aws: BrokenAws, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = Story(audit, broken_aws, tmp_path, "results-lost", closing_seconds=0.3)
    broken_aws.breaks("DynamoDB.BatchWriteItem")
    (tmp_path / "end.seen").touch()
    assert story.attempt(ENDS_WELL) == RUNNER_ERROR.exit_code
    outcome = story.run.outcome(1)
    assert outcome is not None and outcome["error"] == "Dbt.RunnerError" and "dbt succeeded" in outcome["message"]
    assert (outcome["counts"], story.statuses) == ({"success": 1}, {})
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "results could not be written" in line]
    assert [result["unique_id"] for line in told for result in line.get("results", [])] == ["a"]


def test_artifacts_that_the_bucket_never_took_are_made_again_and_nothing_is_executed(
    audit: tuple[Store, str], broken_aws: BrokenAws, tmp_path: Path
) -> None:
    story = Story(audit, broken_aws, tmp_path, "artifacts-lost", closing_seconds=0.3)
    broken_aws.breaks("S3.PUT")
    (tmp_path / "end.seen").touch()
    assert story.attempt(ENDS_WELL) == INTERRUPTED.exit_code
    first = story.run.outcome(1)
    assert first is not None and "the artifacts" in first["message"] and (first["artifacts"], first["commands"]) == ([], [])
    broken_aws.breaks()
    again = "command = spec['earlier'][0]\nassert [node['unique_id'] for node in command['done']] == ['a'] and not command['finished']\n"
    assert story.attempt(again + "artifacts()\ndone()\n", number=2) == 0
    second = story.run.outcome(2)
    assert second is not None and second["artifacts"] and second["counts"] == {"success": 1}


# --- containers, with real dbt: outages of half a minute ---------------------------------------------------------------------

OUTAGE_SECONDS = 30.0


@pytest.mark.slow
@EVERYTHING
@pytest.mark.parametrize("moment", ["start", "middle", "end"])
def test_half_a_minute_without_aws(
    audit: tuple[Store, str], broken_aws: BrokenAws, tmp_path: Path, figure: Callable[[str], None], broken: tuple[str, ...], moment: str
) -> None:
    files = project.files(2)
    store, _ = audit
    _unpublish(store)
    publish(store, tmp_path / "project", files)
    run = Run(store, broken_aws.endpoint, f"half-a-minute-{moment}-{'-'.join(broken)}", tmp_path / "warehouse.duckdb")
    until = {"start": "", "middle": " OK ", "end": "Completed successfully"}[moment]
    with run.start(1) as container:
        for number in itertools.count(1):
            if not until or any(until in line for line in container.lines):
                break
            assert container.wait_for_lines(number), "".join(container.lines)
        began = time.monotonic()
        broken_aws.breaks(*broken)
        timer = threading.Timer(OUTAGE_SECONDS, broken_aws.breaks)
        timer.start()
        code = container.wait()
        seconds = time.monotonic() - began
        timer.cancel()
    refused = ", ".join(f"{name} {count}" for name, count in sorted(broken_aws.refused.items())) or "nothing"
    gone = f"{'+'.join(broken)} gone for {OUTAGE_SECONDS:.0f} s at the {moment}"
    figure(f"{gone}: exit code {code} after {seconds:.0f} s; refused {refused}")
    assert code == 0, "".join(container.lines[-5:])
    outcome = run.outcome(1)
    assert outcome is not None
    executed = {unique_id: item for unique_id, item in run.nodes().items() if item["resource_type"] != "operation"}
    assert sum(outcome["counts"].values()) == len(run.nodes())
    assert len(executed) == project.nodes(files) + sum("ephemeral" in text for text in files.values())
    assert {artifact["key"].rsplit("/", 1)[1] for artifact in outcome["artifacts"]} >= {"run_results.json", "manifest.json", "dbt.log"}


def _unpublish(store: Store) -> None:
    """A version is published once; every test here has its own project."""
    store._dynamodb.delete_item(TableName=TABLE, Key={"pk": {"S": "RELEASE#1.4.2"}, "sk": {"S": "META"}})
    for name in ("bundle.tar.gz", "manifest.json", "release.json"):
        store._s3.delete_object(Bucket=BUCKET, Key=f"releases/1.4.2/{name}")
