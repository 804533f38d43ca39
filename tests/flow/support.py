"""The stack as another process sees it: `dbt-runner local up`, our own commands, boto3, and Terraform on the stack's state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import boto3

from dbt_runner import config, runs
from dbt_runner.local.clients import ACCOUNT, REGION, without_aws_settings
from dbt_runner.local.terraform import Terraform
from dbt_runner.store import Item, Store, environment_pk, run_pk

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
SHOP = CHECKOUT / "examples" / "local" / "shop"
FAULTS = HERE / "faults_project"

T = TypeVar("T")

# Values of the secret variables that all environments here have, and of one that is no secret and is told where they are.
CANARIES = {"parameter": "canary/parameter+of=the team", "secret": "canary-secret-0123456789"}
CONTROL = "control-0123456789"
_ARN = f"arn:aws:{{}}:{REGION}:{ACCOUNT}"
SECRETS = {
    "CANARY_TOKEN": f"{_ARN.format('ssm')}:parameter/canary",
    "DBT_ENV_SECRET_CANARY": f"{_ARN.format('secretsmanager')}:secret:canary:token::",
}

UP_SECONDS = 300
RUN_SECONDS = 180


def wait_for(what: str, look: Callable[[], T | None], seconds: float = RUN_SECONDS) -> T:
    """Looks again and again until there is something; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        # Each look is requests that the stack answers, while it runs.
        time.sleep(0.25)
    return found


@dataclass
class Stack:
    """A running stack.

    Attributes:
        environ: what `local up` printed.
        home: the stack's folder.
        commands: command lines of all processes that were seen while tests ran.
    """

    process: subprocess.Popen[str]
    environ: Mapping[str, str]
    home: Path
    commands: set[str] = field(default_factory=set)
    _clients: dict[str, Any] = field(default_factory=dict)

    @property
    def process_environ(self) -> dict[str, str]:
        return {**without_aws_settings(os.environ), **self.environ}

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = boto3.client(
                service,  # type: ignore[call-overload]
                endpoint_url=self.environ["AWS_ENDPOINT_URL"],
                region_name=self.environ["AWS_DEFAULT_REGION"],
                aws_access_key_id=self.environ["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=self.environ["AWS_SECRET_ACCESS_KEY"],
            )
        return self._clients[service]

    @property
    def store(self) -> Store:
        return Store(self.client("dynamodb"), self.client("s3"), self.environ["DBT_RUNNER_TABLE"], None)

    def config(self, environment: str) -> config.EnvironmentConfig:
        return config.load(self.store, environment)

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Calls dbt-runner as a person in another terminal would."""
        done = subprocess.run(
            [sys.executable, "-m", "dbt_runner", *arguments],
            env=self.process_environ,
            cwd=self.home,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS,
        )
        assert not check or done.returncode == 0, f"dbt-runner {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done

    def terraform(self) -> Terraform:
        """Terraform on the state that `local up` made."""
        return Terraform(self.home / "terraform" / "examples" / "local", environ=self.process_environ, warn=lambda text: None)

    def keep_secrets(self) -> None:
        """Puts the secrets where the environments' references lead."""
        self.client("ssm").put_parameter(Name="/canary", Value=CANARIES["parameter"], Type="SecureString")
        self.client("secretsmanager").create_secret(Name="canary", SecretString=json.dumps({"token": CANARIES["secret"]}))

    def look_at_processes(self) -> None:
        """Adds the command lines of all processes of this machine, where there is /proc."""
        # Not */cmdline: a process that is gone ends the search for files in its folder.
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                self.commands.add((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))

    # --- runs ----------------------------------------------------------------------------------------------------

    def start(self, environment: str, document: object) -> str:
        """Starts an execution with any input at all, past every check of the CLI; returns its ARN."""
        arn: str = self.client("stepfunctions").start_execution(
            stateMachineArn=self.config(environment).state_machine, input=json.dumps(document)
        )["executionArn"]
        return arn

    def abort(self, execution: str) -> None:
        self.client("stepfunctions").stop_execution(executionArn=execution)

    def execution_ended(self, execution: str) -> Mapping[str, Any]:
        """The execution when it has ended."""

        def look() -> Mapping[str, Any] | None:
            self.look_at_processes()
            answer: Mapping[str, Any] = self.client("stepfunctions").describe_execution(executionArn=execution)
            return answer if answer["status"] != "RUNNING" else None

        return wait_for(f"end of {execution}", look)

    def record(self, environment: str, execution: str) -> Item:
        """The one closed record of an execution that has ended."""

        def look() -> Item | None:
            found = [item for item in self._records(environment) if item["execution"] == execution]
            assert len(found) <= 1, found
            return found[0] if found and "ended_at" in found[0] else None

        return wait_for(f"closed record of {execution}", look, 60)

    def run(self, environment: str, document: object) -> tuple[Mapping[str, Any], Item]:
        """Runs to the end: the execution and its record."""
        execution = self.start(environment, document)
        return self.execution_ended(execution), self.record(environment, execution)

    def nodes(self, environment: str, execution: str) -> dict[str, Item]:
        """The node items of a run, by unique_id."""
        run_id = execution.rsplit(":", 1)[1]
        return {item["unique_id"]: item for item in self.store.query(run_pk(environment, run_id), "NODE#")}

    def outcomes(self, environment: str, execution: str) -> list[Item]:
        run_id = execution.rsplit(":", 1)[1]
        return list(self.store.query(run_pk(environment, run_id), "STEP#"))

    def wait_until_slow_runs(self, environment: str, execution: str) -> None:
        """Until the model `fast` is in the books, so that `slow` is what dbt is busy with."""
        wait_for("model fast", lambda: self.nodes(environment, execution).get("model.shop.fast"))

    def lock(self, environment: str) -> runs.Lock | None:
        return runs.lock_of(self.store, environment)

    def open_records(self) -> list[Item]:
        """Records of all environments that are not closed."""
        return [item for name in environments(self.home) for item in self._records(name) if "ended_at" not in item]

    def _records(self, environment: str) -> list[Item]:
        return list(self.store.query(environment_pk(environment), "RUN#"))

    def worker_pid(self, execution: str, step: str) -> int:
        """The process id of a step's worker, from the log of the task or sandbox that runs it."""
        run_id = execution.rsplit(":", 1)[1]

        def look() -> int | None:
            for log in (self.home / "logs").glob("*.log"):
                for line in log.read_text().splitlines():
                    entry: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
                    if entry.get("run_id") == run_id and entry.get("step") == step and "worker_pid" in entry:
                        return int(entry["worker_pid"])
            return None

        return wait_for("worker", look, 30)


def environments(home: Path) -> dict[str, Any]:
    """Three environments of one apply: one a policy for runs that overlap, with a database each.

    `queue` has a Lambda function, and `busy` no health check; `busy` takes pull requests.
    """
    jobs = json.loads((CHECKOUT / "examples" / "local" / "jobs.json").read_text())
    return {
        name: {
            "warehouse": {"type": "duckdb", "settings": {"path": str(home / f"{name}.duckdb"), "threads": "4"}},
            "compute": {"spot": name != "queue", "sizes": [{"cpu": 1024, "memory": 4096}, {"cpu": 2048, "memory": 8192}]},
            "retry": {"max_attempts": 3, "interval_seconds": 2, "backoff_rate": 2},
            "health_check": {"enabled": name != "busy", "compute": "lambda" if name == "queue" else "fargate"},
            "overlap": overlap,
            "slim_ci": {"schema_suffixes": "pr_[0-9]+" if name == "busy" else None},
            "timeout_seconds": 1800,
            "jobs": jobs,
            "env_vars": {"CONTROL": CONTROL},
            "secrets": SECRETS,
        }
        for name, overlap in {"local": "skip", "queue": "queue", "busy": "fail"}.items()
    }


def up(home: Path) -> Stack:
    """Starts `dbt-runner local up` and waits until it is ready."""
    file = home / "environments.json"
    file.write_text(json.dumps(environments(home)))
    errors = (home / "up.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "dbt_runner", "local", "up", "--home", str(home), "--environments", str(file)],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    environ = dict(_exports(process))
    assert "DBT_RUNNER_TABLE" in environ, f"local up ended with {process.wait(UP_SECONDS)}: {(home / 'up.log').read_text()[-3000:]}"
    return Stack(process, environ, home)


def down(stack: Stack) -> str:
    """Ends it as Ctrl-C does, and where that fails by what cannot be ignored; returns what it had said."""
    stack.process.send_signal(signal.SIGINT)
    try:
        code = stack.process.wait(60)
    except subprocess.TimeoutExpired:
        stack.process.kill()
        code = stack.process.wait()
    said = (stack.home / "up.log").read_text()
    assert code == 0, said[-3000:]
    return said


def _exports(process: subprocess.Popen[str]) -> Sequence[tuple[str, str]]:
    assert process.stdout is not None
    exports = []
    for line in process.stdout:
        name, _, value = line.strip().removeprefix("export ").partition("=")
        exports.append((name, value))
        if name == "DBT_RUNNER_ENVIRONMENT":
            break
    return exports
