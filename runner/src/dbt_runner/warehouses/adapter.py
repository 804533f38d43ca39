"""What the runner knows of one dbt adapter: its settings, how its identity is obtained, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from dbt_runner.config import Warehouse
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.warehouses.faults import Faults
from dbt_runner.warehouses.inquiry import Inquiry


class Credential(Enum):
    """What the supervisor has to give to the worker, so that the adapter finds it by itself.

    AWS: the warehouse role's credentials, by the container-credentials protocol (AWS_CONTAINER_CREDENTIALS_FULL_URI and
        AWS_CONTAINER_AUTHORIZATION_TOKEN).
    GCP_SUBJECT_TOKEN: an external_account file that GOOGLE_APPLICATION_CREDENTIALS names, whose credential_source is a URL that
        answers with a token of the warehouse role for `identity.audience`.
    ACCESS_TOKEN: a URL that answers with an access token of Okta, obtained under the warehouse role, which the worker asks for at each
        login (DBT_RUNNER_TOKEN_URL and DBT_RUNNER_TOKEN_AUTHORIZATION).
    PGPASS: a password file that PGPASSFILE names, with a token of the warehouse role for settings.host, port and user.
    """

    NONE = "none"
    AWS = "aws"
    GCP_SUBJECT_TOKEN = "gcp_subject_token"
    ACCESS_TOKEN = "access_token"
    PGPASS = "pgpass"


# How one of Terraform's strings becomes what dbt expects.
Kind = type[str] | type[int] | type[float] | type[bool]
_WANTED: Mapping[Kind, str] = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def _nothing(_: Warehouse) -> Mapping[str, str]:
    return {}


def _accept(_: Warehouse | Inquiry) -> None:
    return None


@dataclass(frozen=True)
class Adapter:
    """One dbt adapter.

    Attributes:
        type: as dbt and Terraform call it.
        settings: what `warehouse.settings` may hold; each is a key of dbt's profile.
        required: settings that have no default.
        identity: what `warehouse.identity` may hold.
        credential: what the worker needs to log in.
        faults: what the exceptions of the adapter and of its driver mean.
        fixed: keys of the profile that are the same for everybody, or a setting's default.
        check: refuses settings that do not go together, by `invalid`.
        derived: keys of the profile that follow from settings and identity; they win over everything else.
        environment: the worker's environment variables that depend on no credential; AWS's own are the broker's.
        ask: in the worker: what the health check asks beyond `select 1`, first of all whether dbt may build in the target schema. Raises
            NeedNotMet when the warehouse says no, or its own exception.
        session_tags: tags that the warehouse role's session needs besides those that name the run.
        schema_setting: the key of the profile that names the schema, or what this warehouse calls so.
    """

    type: str
    settings: Mapping[str, Kind]
    required: tuple[str, ...]
    credential: Callable[[Warehouse], Credential]
    faults: Faults
    identity: frozenset[str] = frozenset()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[Warehouse], None] = _accept
    derived: Callable[[Warehouse], Mapping[str, Any]] = _nothing
    environment: Callable[[Warehouse], Mapping[str, str]] = _nothing
    ask: Callable[[Inquiry], None] = _accept
    session_tags: Callable[[Warehouse], Mapping[str, str]] = _nothing
    schema_setting: str = "schema"

    def output(self, warehouse: Warehouse, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One output of a profile: dbt's connection settings for this warehouse.

        Args:
            own: what the project says itself. The environment's settings win over it, and the identity over both.

        Raises:
            TypedError: Dbt.InvalidRequest, naming the setting.
        """
        result: dict[str, Any] = {"threads": 4, **self.fixed, **(own or {}), "type": self.type}
        for key, value in warehouse.settings.items():
            if key not in self.settings:
                raise invalid(f"settings.{key}", f"unknown for {self.type}; known are {', '.join(self.settings)}")
            result[key] = _converted(key, value, self.settings[key])
        for key in warehouse.identity:
            if key not in self.identity:
                known = ", ".join(sorted(self.identity)) or "none"
                raise invalid(f"identity.{key}", f"unknown for {self.type}; known are {known}")
        for key in self.required:
            if key not in warehouse.settings:
                raise invalid(f"settings.{key}", "is required")
        self.check(warehouse)
        return {**result, **self.derived(warehouse)}


def invalid(field_: str, problem: str) -> TypedError:
    """Dbt.InvalidRequest about a part of the environment's warehouse."""
    return TypedError(INVALID_REQUEST, f"environment's warehouse.{field_}: {problem}")


def require_identity(warehouse: Warehouse, *keys: str) -> None:
    """Raises: TypedError: Dbt.InvalidRequest for the first key that `identity` lacks."""
    for key in keys:
        if not warehouse.identity.get(key):
            raise invalid(f"identity.{key}", f"is required for {warehouse.type}")


def require_method(warehouse: Warehouse, *methods: str) -> None:
    """Raises: TypedError: Dbt.InvalidRequest when `identity.method` is given and none of these."""
    method = warehouse.identity.get("method")
    if method is not None and method not in methods:
        raise invalid("identity.method", f"must be {' or '.join(methods)}, not {method!r}")


def _converted(key: str, value: object, kind: Kind) -> str | int | float:
    problem = invalid(f"settings.{key}", f"must be {_WANTED[kind]}, not {value!r}")
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise problem
    if kind is bool:
        if value not in ("true", "false"):
            raise problem
        return value == "true"
    try:
        return kind(value)
    except ValueError as exc:
        raise problem from exc
