"""Who the worker is: the credentials and variables that the process with the team's code gets, and the ones it does not.

The worker never sees the control role's credentials. Where the warehouse wants a token, the supervisor obtains it as the
warehouse role, for this run, and renews it while the run goes on.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, TypedError
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptRequest

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html: a token is good for 15 minutes.
_RENEW_EVERY_SECONDS = 600.0
_PR_SET_DUMPABLE = 4
# The last three are Lambda's own.
_CONTROL_PREFIXES = ("AWS_", "ECS_", "DBT_RUNNER_", "LAMBDA_", "_HANDLER", "_X_AMZN_")


def worker_environment(own: Mapping[str, str], work: Path) -> dict[str, str]:
    """The worker's environment variables: the container's own, less everything that belongs to the control role.

    Args:
        own: the supervisor's environment.
        work: the attempt's folder, which becomes HOME, because the root file system may be read-only.
    """
    environment = {key: value for key, value in own.items() if not key.startswith(_CONTROL_PREFIXES)}
    environment.update(
        HOME=str(work),
        DBT_SEND_ANONYMOUS_USAGE_STATS="false",
        PYTHONUNBUFFERED="1",
    )
    return environment


def hide() -> None:
    """Keeps this process's environment and memory from the worker, which runs as the same user. On Linux only.

    Without it the team's code could read the control role's variables in /proc and fetch its credentials by them. The worker is
    not affected: it is another program. https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html

    Raises:
        OSError: the kernel refused.
    """
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE, 0)")


def session_name(run_id: str) -> str:
    """A run id as a RoleSessionName: 2 to 64 of [A-Za-z0-9_+=,.@-]; a longer one keeps its start and gets a hash."""
    clean = re.sub(r"[^\w+=,.@-]", "-", run_id, flags=re.ASCII).ljust(2, "-")
    if len(clean) <= 64:
        return clean
    return f"{clean[:55]}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


class PasswordFile:
    """Keeps a libpq password file that holds a fresh RDS token.

    libpq reads the file at every new connection, and dbt opens one for every node, so a run may last longer than a token.

    Args:
        request: the attempt; its warehouse must be postgres with `identity.method = "rds_iam"`.
        sts: a client of the control role, which may assume the warehouse role.
        path: where the file is kept.
        log: told about every renewal.
        renew_every_seconds: how old the token in the file may become.
        clients: makes a boto3 client from a service and credentials; a seam for tests.
    """

    def __init__(
        self,
        request: AttemptRequest,
        sts: STSClient,
        path: Path,
        log: JsonLog,
        *,
        renew_every_seconds: float = _RENEW_EVERY_SECONDS,
        clients: Any = None,
    ) -> None:
        self._renew_every = renew_every_seconds
        self._request = request
        self._sts = sts
        self._path = path
        self._log = log
        self._clients = clients or _boto3_client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="password-file", daemon=True)

    def __enter__(self) -> Self:
        self.write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)

    def write(self) -> None:
        """Obtains a token and replaces the file in one step.

        Raises:
            TypedError: Dbt.AccessDenied when AWS refuses the warehouse role, Dbt.WarehouseUnavailable when AWS cannot answer.
        """
        request, settings = self._request, self._request.config.warehouse.settings
        port = int(settings.get("port", 5432))
        try:
            credentials = self._sts.assume_role(
                RoleArn=request.config.roles["warehouse"],
                RoleSessionName=session_name(request.key.run_id),
                SourceIdentity=session_name(request.key.run_id),
                Tags=[
                    {"Key": "environment", "Value": request.key.environment},
                    {"Key": "run", "Value": _tag_value(request.key.run_id)},
                ],
                TransitiveTagKeys=["environment", "run"],
                DurationSeconds=3600,
            )["Credentials"]
            rds = self._clients("rds", request.config.region, credentials)
            token = rds.generate_db_auth_token(DBHostname=settings["host"], Port=port, DBUsername=settings["user"])
        except (BotoCoreError, ClientError) as exc:
            raise TypedError(
                WAREHOUSE_UNAVAILABLE if _is_outage(exc) else ACCESS_DENIED,
                f"no token for the warehouse: {exc}",
                f"AssumeRole {request.config.roles['warehouse']} or the RDS token failed with {type(exc).__name__}",
            ) from exc
        line = ":".join(_escape(part) for part in (settings["host"], str(port), "*", settings["user"], token))
        fresh = self._path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(line + "\n")
        fresh.replace(self._path)

    def _renew(self) -> None:
        while not self._stop.wait(self._renew_every):
            try:
                self.write()
                self._log.info("renewed the warehouse token")
            except TypedError as exc:
                # The old token may still be good; if not, the next connection says so with the warehouse's own words.
                self._log.error(str(exc), why=exc.why)


def needs_password_file(request: AttemptRequest) -> bool:
    warehouse = request.config.warehouse
    return warehouse.type == "postgres" and warehouse.identity.get("method") == "rds_iam"


def _is_outage(exc: BotoCoreError | ClientError) -> bool:
    """Whether AWS did not answer or could not, rather than refuse. boto3 has tried several times by then."""
    if isinstance(exc, ClientError):
        code, metadata = exc.response.get("Error", {}).get("Code", ""), exc.response.get("ResponseMetadata", {})
        return metadata.get("HTTPStatusCode", 0) >= 500 or "Throttl" in code
    return isinstance(exc, (ConnectionError, HTTPClientError))


def _tag_value(text: str) -> str:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_Tag.html: execution names know characters that tags do not."""
    return re.sub(r"[^\w .:/=+@-]", "-", text)


def _escape(part: str) -> str:
    return part.replace("\\", "\\\\").replace(":", "\\:")


def _boto3_client(service: str, region: str, credentials: Mapping[str, Any]) -> Any:
    import boto3

    return boto3.client(
        service,  # type: ignore[call-overload]
        region_name=region,
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
    )
