"""The credential broker: gives the worker what its warehouse wants to see, under the warehouse role, for this run, and keeps it fresh.

It lives in the supervisor, beside the worker and for as long. What the worker gets are addresses: variables that lead AWS's SDKs,
google-auth and libpq to a loopback endpoint or a file, from which they read again by themselves before each login.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dbt_runner.broker import okta, tokens
from dbt_runner.broker.server import LoopbackServer
from dbt_runner.broker.session import Credentials, Kept, assume
from dbt_runner.errors import TypedError
from dbt_runner.logs import JsonLog
from dbt_runner.request import AttemptRequest
from dbt_runner.warehouses import Credential, adapter_of
from dbt_runner.warehouses.snowflake_login import TOKEN_AUTHORIZATION, TOKEN_FIELD, TOKEN_URL

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

# https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html: a token is good for 15 minutes.
_RENEW_FILE_AFTER_SECONDS = 600.0
_TRY_AGAIN_AFTER_SECONDS = 15.0
_AWS, _GCP, _TOKEN = "/aws", "/gcp", "/token"


class Broker:
    """Serves one attempt's warehouse. Entering it obtains the first credential, so that a refusal is known before dbt starts.

    Args:
        request: the attempt.
        sts: makes a client of the control role, which may assume the warehouse role; called only where the warehouse wants that.
        work: the attempt's folder, for the files that drivers read.
        log: told about faults, never about what is served.
        clients: makes a boto3 client from a service, a region and credentials; a seam for tests.
        on_secret: told every secret value before anybody can see it.
        renew_file_after_seconds: how old the database token in the password file may become.
        clock: tells when a session is to be renewed; a seam for tests.
    """

    def __init__(
        self,
        request: AttemptRequest,
        sts: Callable[[], STSClient],
        work: Path,
        log: JsonLog,
        *,
        clients: tokens.Clients | None = None,
        on_secret: Callable[[Sequence[str]], None] = lambda _: None,
        renew_file_after_seconds: float = _RENEW_FILE_AFTER_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        warehouse = request.config.warehouse
        self._request = request
        self._adapter = adapter_of(warehouse)
        self._kind = self._adapter.credential(warehouse)
        self._sts = sts
        self._work = work
        self._log = log
        self._clients = clients or tokens.boto3_client
        self._on_secret = on_secret
        self._renew_file_after = renew_file_after_seconds
        self._role: Kept[Credentials] = Kept(self._assume, self._covered, clock)
        self._subject: Kept[tokens.SubjectToken] = Kept(self._subject_token, self._covered, clock)
        self._access: Kept[okta.AccessToken] = Kept(self._access_token, self._covered, clock)
        self._stop = threading.Event()
        self._left = contextlib.ExitStack()
        self._variables: dict[str, str] = {}
        self._fault: TypedError | None = None

    @property
    def variables(self) -> Mapping[str, str]:
        """The worker's environment variables that lead to the credentials."""
        return self._variables

    @property
    def fault(self) -> TypedError | None:
        """Why the worker could not be served, the last time that it asked; None when it was."""
        return self._fault

    def __enter__(self) -> Self:
        self._variables.update(self._adapter.environment(self._request.config.warehouse))
        if self._kind is Credential.NONE:
            return self
        self._client = self._sts()
        self._role.get()
        with self._left:
            if self._kind is Credential.PGPASS:
                self._keep_password_file()
            else:
                self._serve()
            # From here on leaving is __exit__'s.
            self._left = self._left.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def _serve(self) -> None:
        region = self._request.config.region
        self._variables.update(AWS_REGION=region, AWS_DEFAULT_REGION=region)
        path, answer = {
            Credential.AWS: (_AWS, self._aws),
            Credential.GCP_SUBJECT_TOKEN: (_GCP, self._gcp),
            Credential.ACCESS_TOKEN: (_TOKEN, self._token),
        }[self._kind]
        server = self._left.enter_context(LoopbackServer({path: answer}))
        self._on_secret([server.bearer])
        if self._kind is Credential.AWS:
            self._variables.update(AWS_CONTAINER_CREDENTIALS_FULL_URI=server.url(_AWS), AWS_CONTAINER_AUTHORIZATION_TOKEN=server.bearer)
            return
        # The first token is obtained now: a refusal should not have to wait for dbt.
        if self._kind is Credential.ACCESS_TOKEN:
            self._access.get()
            self._variables.update({TOKEN_URL: server.url(_TOKEN), TOKEN_AUTHORIZATION: server.bearer})
            return
        self._subject.get()
        file = self._work / "gcp.json"
        tokens.write_private(file, tokens.external_account(self._request.config.warehouse.identity, server.url(_GCP), server.bearer))
        self._left.callback(file.unlink, missing_ok=True)
        self._variables.update(GOOGLE_APPLICATION_CREDENTIALS=str(file))

    def _keep_password_file(self) -> None:
        path = self._work / "pgpass"
        self._left.callback(path.unlink, missing_ok=True)
        self._write_password_file(path)
        thread = threading.Thread(target=self._renew_password_file, args=(path,), name="password-file", daemon=True)
        thread.start()
        self._left.callback(thread.join)
        self._left.callback(self._stop.set)
        self._variables.update(PGPASSFILE=str(path))

    def _write_password_file(self, path: Path) -> None:
        config = self._request.config
        token = tokens.database_token(config.warehouse.settings, config.region, self._role.get(), self._clients)
        # Where the token goes is no secret, and is written in other ways elsewhere.
        self._on_secret([token.partition("?")[2] or token])
        tokens.write_private(path, tokens.password_line(config.warehouse.settings, token))

    def _renew_password_file(self, path: Path) -> None:
        wait = self._renew_file_after
        while not self._stop.wait(wait):
            try:
                self._write_password_file(path)
                self._fault, wait = None, self._renew_file_after
                self._log.info("renewed the warehouse token")
            except TypedError as exc:
                # The old token may still be good. If not, the next connection fails, and this is why.
                self._fault, wait = exc, min(_TRY_AGAIN_AFTER_SECONDS, self._renew_file_after)
                self._covered(exc)

    # --- what is served ------------------------------------------------------------------------------------------------------

    def _aws(self) -> Mapping[str, str]:
        credentials = self._noting_faults(self._role.get)
        return {
            "AccessKeyId": credentials.access_key_id,
            "SecretAccessKey": credentials.secret_access_key,
            "Token": credentials.session_token,
            "Expiration": credentials.expires_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        }

    def _gcp(self) -> Mapping[str, str]:
        return {tokens.SUBJECT_TOKEN_FIELD: self._noting_faults(self._subject.get).token}

    def _token(self) -> Mapping[str, str]:
        return {TOKEN_FIELD: self._noting_faults(self._access.get).token}

    def _assume(self) -> Credentials:
        roles, warehouse = self._request.config.roles, self._request.config.warehouse
        credentials = assume(self._client, roles["warehouse"], self._request.key, self._adapter.session_tags(warehouse))
        self._on_secret([credentials.secret_access_key, credentials.session_token])
        return credentials

    def _subject_token(self) -> tokens.SubjectToken:
        request = self._request
        token = tokens.subject_token(
            request.config.warehouse.identity["audience"], request.key, request.config.region, self._role.get(), self._clients
        )
        self._on_secret([token.token])
        return token

    def _access_token(self) -> okta.AccessToken:
        config = self._request.config
        token = okta.access_token(
            config.warehouse.identity, config.warehouse.settings["role"], config.region, self._role.get(), self._clients
        )
        self._on_secret([token.token])
        return token

    def _noting_faults(self, get: Callable[[], Any]) -> Any:
        try:
            found = get()
        except TypedError as exc:
            self._fault = exc
            self._log.error(f"the worker gets no credential: {exc}", why=exc.why)
            raise
        self._fault = None
        return found

    def _covered(self, exc: TypedError) -> None:
        self._log.warning(f"the credential could not be renewed yet: {exc}", why=exc.why)
