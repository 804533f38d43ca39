"""The warehouse role's session: assumed for one run, kept while it is good, and renewed before it ends."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, TypedError
from dbt_runner.outages import is_outage
from dbt_runner.request import AttemptKey

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

# https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-role-chaining: one hour at most for a role that is assumed by
# another role's session.
_SESSION_SECONDS = 3600
# SDKs begin to ask anew 15 minutes before the end (botocore.credentials.RefreshableCredentials): with a third of the hour left, what
# they are given is never that old, and they ask seldom.
_RENEW_IN_LAST = 1 / 3

_Renewed = TypeVar("_Renewed", bound="Expiring")


@dataclass(frozen=True)
class Expiring:
    """Something that is good until a moment."""

    expires_at: datetime


@dataclass(frozen=True)
class Credentials(Expiring):
    """Temporary credentials of AWS. What is secret of them is in no representation."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)


class Kept(Generic[_Renewed]):
    """Keeps something that expires, and gets a new one before it does. Thread-safe.

    One request is in flight at most. Whoever asks meanwhile gets the old one as long as it is good, because drivers wait for two seconds
    and an AWS that hangs for longer; without one that is good they wait. When renewing fails, the old one is given out as long as it is
    good, and the next attempt waits a little, so that a fault is not answered by a storm.

    Args:
        renew: gets a new one.
        on_fault: told about each failure to renew that the old one covers.
        clock: tells the time, in UTC.
    """

    def __init__(
        self,
        renew: Callable[[], _Renewed],
        on_fault: Callable[[TypedError], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._renew = renew
        self._on_fault = on_fault
        self._clock = clock
        self._lock = threading.Lock()
        self._held: _Renewed | None = None
        self._renew_at = datetime.min.replace(tzinfo=UTC)

    def get(self) -> _Renewed:
        """One that is good.

        Raises:
            TypedError: as `renew` raises, when there is none that is still good.
        """
        held = self._held
        if held is not None and self._clock() < held.expires_at:
            if not self._lock.acquire(blocking=False):
                return held
        else:
            self._lock.acquire()
        try:
            return self._kept_or_renewed()
        finally:
            self._lock.release()

    def _kept_or_renewed(self) -> _Renewed:
        held, now = self._held, self._clock()
        if held is not None and now < min(self._renew_at, held.expires_at):
            return held
        try:
            fresh = self._held = self._renew()
        except TypedError as exc:
            # A fault may take its time.
            now = self._clock()
            if held is None or now >= held.expires_at:
                raise
            self._renew_at = now + (held.expires_at - now) / 4
            self._on_fault(exc)
            return held
        self._renew_at = fresh.expires_at - (fresh.expires_at - now) * _RENEW_IN_LAST
        return fresh


def assume(sts: STSClient, role: str, key: AttemptKey, tags: Mapping[str, str]) -> Credentials:
    """Assumes the warehouse role for a run: CloudTrail names the run with everything that is done under these credentials.

    Args:
        sts: a client of the control role.
        role: the warehouse role's ARN.
        key: the run, in its environment.
        tags: session tags beside `environment` and `run`. All of them go along where the session assumes another role.

    Raises:
        TypedError: Dbt.AccessDenied when AWS refuses, Dbt.WarehouseUnavailable when it does not answer or cannot.
    """
    all_tags = {**tags, "environment": key.environment, "run": _tag_value(key.run_id)}
    try:
        raw = sts.assume_role(
            RoleArn=role,
            RoleSessionName=session_name(key.run_id),
            SourceIdentity=session_name(key.run_id),
            Tags=[{"Key": name, "Value": value} for name, value in sorted(all_tags.items())],
            TransitiveTagKeys=sorted(all_tags),
            DurationSeconds=_SESSION_SECONDS,
        )["Credentials"]
    except (BotoCoreError, ClientError) as exc:
        raise refusal(exc, f"AssumeRole {role}") from exc
    return Credentials(
        expires_at=raw["Expiration"].astimezone(UTC),
        access_key_id=raw["AccessKeyId"],
        secret_access_key=raw["SecretAccessKey"],
        session_token=raw["SessionToken"],
    )


def refusal(exc: BotoCoreError | ClientError, action: str) -> TypedError:
    """What a failed call of AWS on the way to the warehouse means: Dbt.WarehouseUnavailable for an outage, else Dbt.AccessDenied."""
    return TypedError(
        WAREHOUSE_UNAVAILABLE if is_outage(exc) else ACCESS_DENIED,
        f"no credential for the warehouse: {exc}",
        f"{action} failed with {type(exc).__name__}",
    )


def session_name(run_id: str) -> str:
    """A run id as a RoleSessionName: 2 to 64 of [A-Za-z0-9_+=,.@-]. One that is not of that form keeps its start and gets a hash, so that
    no two runs have one name.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
    """
    clean = re.sub(r"[^\w+=,.@-]", "-", run_id, flags=re.ASCII)
    if clean == run_id and 2 <= len(clean) <= 64:
        return clean
    return f"{clean[:55]}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def _tag_value(text: str) -> str:
    """A run id where a tag may hold it, else the session's name: execution names know characters that tags do not.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_Tag.html
    """
    return text if re.fullmatch(r"[\w .:/=+@-]{1,256}", text) else session_name(text)
