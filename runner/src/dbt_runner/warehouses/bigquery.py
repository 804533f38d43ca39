"""BigQuery by workload identity federation and a service account. https://cloud.google.com/iam/docs/workload-identity-federation

google-auth asks the supervisor for a token of the warehouse role, exchanges it at Google's STS, and becomes the service account.
dbt's own `external-oauth-wif` is for Entra and Okta only; the file works below it, with `method: oauth`.
"""

from __future__ import annotations

from collections.abc import Mapping

from dbt_runner.errors import ACCESS_DENIED, WAREHOUSE_UNAVAILABLE, ErrorKind
from dbt_runner.warehouses.adapter import Adapter, Credential, require_identity
from dbt_runner.warehouses.faults import Faults
from dbt_runner.warehouses.inquiry import Inquiry

# https://cloud.google.com/bigquery/docs/error-messages
_REASONS: Mapping[str, ErrorKind | None] = {
    **dict.fromkeys(
        (
            "backendError",
            "internalError",
            "jobBackendError",
            "jobInternalError",
            "jobRateLimitExceeded",
            "rateLimitExceeded",
            "tableUnavailable",
        ),
        WAREHOUSE_UNAVAILABLE,
    ),
    # A quota of days, not of seconds: HTTP calls both 403.
    "quotaExceeded": None,
    **dict.fromkeys(("accessDenied", "authError", "billingNotEnabled", "forbidden", "required"), ACCESS_DENIED),
}
_STATUSES: Mapping[str, ErrorKind | None] = {
    "401": ACCESS_DENIED,
    "403": ACCESS_DENIED,
    "429": WAREHOUSE_UNAVAILABLE,
    "5*": WAREHOUSE_UNAVAILABLE,
}


def _ask(inquiry: Inquiry) -> None:
    """A dry run executes nothing and costs nothing, and is refused as the statement would be.

    https://cloud.google.com/bigquery/docs/running-queries#dry-run
    """
    dataset = f"`{inquiry.database}`.`{inquiry.schema}`"
    if inquiry.adapter.check_schema_exists(inquiry.database, inquiry.schema):
        inquiry.adapter.validate_sql(f"create table if not exists {dataset}.dbt_runner_check (id int64)")
    else:
        inquiry.adapter.validate_sql(f"create schema if not exists {dataset}")


ADAPTER = Adapter(
    type="bigquery",
    settings={
        "project": str,
        "dataset": str,
        "location": str,
        "execution_project": str,
        "quota_project": str,
        "priority": str,
        "maximum_bytes_billed": int,
        "api_endpoint": str,
        "threads": int,
        "job_retries": int,
        "job_retry_deadline_seconds": int,
        "job_creation_timeout_seconds": int,
        "job_execution_timeout_seconds": int,
        "reservation": str,
    },
    required=("project", "dataset"),
    schema_setting="dataset",
    identity=frozenset({"audience", "service_account"}),
    check=lambda warehouse: require_identity(warehouse, "audience", "service_account"),
    # The file names the service account: dbt's impersonate_service_account would be a second impersonation.
    derived=lambda _: {"method": "oauth"},
    # Without the first google-auth looks for the metadata service of Compute Engine, for several seconds; without the second it asks
    # Resource Manager for the name of the pool's project, at each connection (google/auth/_default.py).
    environment=lambda warehouse: {"NO_GCE_CHECK": "true", "GOOGLE_CLOUD_PROJECT": warehouse.settings["project"]},
    credential=lambda _: Credential.GCP_SUBJECT_TOKEN,
    ask=_ask,
    faults=Faults(
        codes={
            # google-auth's own word for what is worth another try: google/auth/exceptions.py.
            "retryable": {"true": WAREHOUSE_UNAVAILABLE},
            "reason": _REASONS,
            "http": _STATUSES,
            # RFC 6749, 5.2, as Google's STS answers.
            "oauth": {"server_error": WAREHOUSE_UNAVAILABLE, "temporarily_unavailable": WAREHOUSE_UNAVAILABLE, "*": ACCESS_DENIED},
        },
        types={
            # google/auth/exceptions.py. TransportError stands for a network that did not answer.
            "TransportError": WAREHOUSE_UNAVAILABLE,
            "RetryError": WAREHOUSE_UNAVAILABLE,
            "DefaultCredentialsError": ACCESS_DENIED,
            "RefreshError": ACCESS_DENIED,
            "OAuthError": ACCESS_DENIED,
        },
    ),
)
