"""The two AWS implementations, each a process with the module applied to it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbt_runner.local.clients import ACCOUNT, REGION, boto3_client, client_environ, without_aws_settings
from dbt_runner.local.terraform import Terraform
from flow.support import CANARIES, CONTROL, SECRETS, Stack
from terraform import largest
from terraform.tool import ROOT, copy_checkout

HERE = Path(__file__).parent
VENV = ROOT / ".second-aws"
PYTHON = VENV / "bin" / "python"
_START_SECONDS = 60

FIRST, SECOND = "moto", "ministack"
# The name of the environment that is as large as docs/limits.md says; with the rest of their names its roles' have 64 characters.
LARGEST = f"largest-{'e' * 40}"


@dataclass
class Engine:
    """An AWS implementation that runs, and what the module has put on it.

    Attributes:
        home: warehouses, logs and Terraform's state.
        stack: the deployment, as tests/flow look at one; there after `apply`.
    """

    name: str
    endpoint: str
    home: Path
    process: subprocess.Popen[str]
    stack: Stack = field(init=False)
    table: str = ""
    bucket: str = ""
    _clients: dict[str, Any] = field(default_factory=dict)

    @property
    def decisions(self) -> Path:
        """Each decision of IAM, as one line of JSON. Only the second AWS makes any."""
        return self.home / "decisions.jsonl"

    def client(self, service: str) -> Any:
        """A client of the root user; the same one each time."""
        if service not in self._clients:
            self._clients[service] = boto3_client(service, self.endpoint)
        return self._clients[service]

    def stop(self) -> None:
        """Asks the server to end, with everything that it runs; does not wait."""
        _ask_to_end(self.process)

    def apply(self) -> None:
        """Puts the module on it, as tests/second_aws/stack says."""
        work = copy_checkout(self.home / "checkout")
        folder = work / "tests" / "second_aws" / "stack"
        shutil.copytree(HERE / "stack", folder, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"))
        key = self.client("kms").create_key(Description="of the stack")["KeyMetadata"]["Arn"]
        self.client("ssm").put_parameter(Name="/canary", Value=CANARIES["parameter"], Type="SecureString")
        secret = self.client("secretsmanager").create_secret(Name="canary", SecretString=json.dumps({"token": CANARIES["secret"]}))["ARN"]
        # IAM knows a secret by its whole ARN, with the characters that Secrets Manager has put behind its name.
        secrets = {**SECRETS, "DBT_ENV_SECRET_CANARY": f"{secret}:token::"}
        own = {name: self._secret(number) for number, name in enumerate(largest.secrets(largest.SECRETS - len(secrets)))}
        tasks = largest.tasks({**own, **secrets})
        warehouse = {"type": "duckdb", "settings": {"path": f"{self.home}/{LARGEST}.duckdb", "threads": "4"}}
        environ = client_environ(self.endpoint)
        terraform = Terraform(folder, environ={**without_aws_settings(os.environ), **environ}, warn=lambda text: None)
        terraform.init()
        variables: dict[str, Any] = {"endpoint": self.endpoint, "home": str(self.home), "region": REGION}
        # The models read what those of the other environments have.
        variables["largest"] = {LARGEST: {**tasks, "warehouse": warehouse, "env_vars": {**tasks["env_vars"], "CONTROL": CONTROL}}}
        outputs = terraform.apply({**variables, "kms_key_arn": key, "secrets": secrets, "control": CONTROL})
        self.table, self.bucket = outputs["table"], outputs["bucket"]
        self.stack = Stack(self.process, {**environ, **outputs["cli"]}, self.home)

    def _secret(self, number: int) -> str:
        """Makes a secret with a name as long as that of the largest environment, and returns its ARN."""
        name = largest.secret_arn(number).rsplit(":", 1)[1].removesuffix("-AbCdEf")
        arn: str = self.client("secretsmanager").create_secret(Name=name, SecretString=f"secret-value-{number:03}")["ARN"]
        return arn


def installed() -> bool:
    """Whether the environment of the second AWS is there: `make test-second-aws` makes it."""
    return PYTHON.exists()


@contextlib.contextmanager
def first(home: Path) -> Iterator[Engine]:
    """moto, as people have it on their machines."""
    with _process(
        [sys.executable, str(HERE / "first_aws.py"), str(home)], home, dict(os.environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        assert endpoint, f"the embedded AWS ended with {process.wait()}: {(home / 'server.log').read_text()[-3000:]}"
        yield Engine(FIRST, endpoint, home, process)


@contextlib.contextmanager
def second(home: Path) -> Iterator[Engine]:
    """ministack with IAM enforced, on the loopback interface only."""
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environ = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ},
        "PYTHONPATH": os.pathsep.join(map(str, [HERE.parent, HERE / "server" / "shim", ROOT / "runner" / "src"])),
        # It listens on all interfaces, and opens more ports, unless it is told otherwise.
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "IOT_MTLS_ENABLED": "false",
        "SFTP_ENABLED": "0",
        "GATEWAY_PORT": str(port),
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
        "AUTH": "true",
        "LOG_LEVEL": "WARNING",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "SECOND_AWS_PYTHON": sys.executable,
        "SECOND_AWS_HOME": str(home),
        "SECOND_AWS_ENVIRON": json.dumps(client_environ(endpoint)),
        "SECOND_AWS_DECISIONS": str(home / "decisions.jsonl"),
        "SECOND_AWS_KEY": "customer",
    }
    with _process([str(PYTHON), "-m", "second_aws.server"], home, environ) as process:
        deadline = time.monotonic() + _START_SECONDS
        while not _answers(endpoint):
            assert process.poll() is None and time.monotonic() < deadline, (home / "server.log").read_text()[-3000:]
            time.sleep(0.1)
        yield Engine(SECOND, endpoint, home, process)


@contextlib.contextmanager
def _process(command: list[str], home: Path, environ: Mapping[str, str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    (home / "logs").mkdir(parents=True)
    with (home / "server.log").open("w") as log:
        options = {"stdout": log, **options}
        process = subprocess.Popen(command, env=dict(environ), stderr=log, text=True, cwd=home, **options)
    try:
        yield process
    finally:
        _ask_to_end(process)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _ask_to_end(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    else:
        process.send_signal(signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(endpoint: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{endpoint}/_ministack/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
