"""BigQuery by workload identity federation: google-auth's own exchange, against a Google that verifies each token, DuckDB behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from dbt_runner.broker import tokens
from runner.conftest import ACCOUNT
from warehouses.aws import Aws
from warehouses.bigquery import AUDIENCE, PROJECT, SERVICE_ACCOUNT, BigQuery
from warehouses.conftest import WarehouseRun
from warehouses.web import serving

pytestmark = pytest.mark.xdist_group("warehouse-bigquery")

Runs = Callable[..., WarehouseRun]


@pytest.fixture(scope="module")
def served_google(served: Aws) -> Iterator[tuple[BigQuery, str]]:
    made = BigQuery(served)
    with serving(made.handle) as url:
        yield made, url


@pytest.fixture
def bigquery(served_google: tuple[BigQuery, str], cloud: Aws) -> BigQuery:
    served_google[0].reset()
    return served_google[0]


@pytest.fixture
def on_bigquery(runs: Runs, served_google: tuple[BigQuery, str], bigquery: BigQuery, monkeypatch: pytest.MonkeyPatch) -> Runs:
    _, url = served_google
    monkeypatch.setattr(tokens, "GOOGLE_STS", f"{url}/v1/token")
    monkeypatch.setattr(tokens, "GOOGLE_IAM", f"{url}/v1")

    def make(**identity: str) -> WarehouseRun:
        settings = {"project": PROJECT, "dataset": "analytics", "location": "EU", "api_endpoint": url}
        given = {"audience": AUDIENCE, "service_account": SERVICE_ACCOUNT, **identity}
        return runs({"type": "bigquery", "settings": settings, "identity": given})

    return make


def test_a_build_passes_with_tokens_that_end_during_the_run(on_bigquery: Runs, bigquery: BigQuery, cloud: Aws) -> None:
    bigquery.lifetime = timedelta(seconds=1)
    run = on_bigquery()
    assert run.build().get("error") is None
    assert run.built() == {"orders": "success", "big_orders": "success", "not_null_big_orders_id": "pass"}
    # The subject of these tokens is the role; their tags name the run.
    assert len(bigquery.exchanges) > 1
    assert all(tags == {"environment": "prod", "run": "r-1"} for tags in bigquery.exchanges)
    # The driver told its tokens, and this is where they were.
    assert run.said.count("authorization: Bearer *****") > len(bigquery.exchanges)
    # Google asks for a token more often than AWS is asked for one.
    assert cloud.calls == ["AssumeRole", "GetWebIdentityToken"]


def test_an_account_without_the_issuer_is_refused_before_dbt_starts(on_bigquery: Runs, cloud: Aws) -> None:
    cloud.issues_tokens = False
    outcome = on_bigquery().check()
    assert outcome["error"] == "Dbt.AccessDenied"
    assert "Outbound web identity federation is not enabled" in outcome["message"]


def _other_role(bigquery: BigQuery, cloud: Aws) -> None:
    bigquery.subject = f"arn:aws:iam::{ACCOUNT}:role/analytics-staging-warehouse"


def _other_audience(bigquery: BigQuery, cloud: Aws) -> None:
    bigquery.audience = f"{AUDIENCE}-staging"


def _too_late(bigquery: BigQuery, cloud: Aws) -> None:
    cloud.ahead = timedelta(minutes=6)


def _no_grant(bigquery: BigQuery, cloud: Aws) -> None:
    bigquery.granted = False


@pytest.mark.parametrize(
    ("dataset", "lacking"),
    [
        ("analytics", "tables.create"),
        pytest.param("analytics", "tables.list", marks=pytest.mark.slow),
        pytest.param("nowhere", "datasets.create", marks=pytest.mark.slow),
    ],
)
def test_whoever_may_not_build_in_the_dataset_is_access_denied(on_bigquery: Runs, bigquery: BigQuery, dataset: str, lacking: str) -> None:
    bigquery.datasets = {"analytics"}
    bigquery.permissions -= {f"bigquery.{lacking}"}
    run = on_bigquery()
    run.config["warehouse"]["settings"]["dataset"] = dataset
    outcome = run.check()
    assert (outcome["error"], outcome["fault"], bigquery.planned) == ("Dbt.AccessDenied", "permission", [])
    assert f"Permission bigquery.{lacking} denied on dataset acme-data:{dataset}" in outcome["message"]


@pytest.mark.slow
def test_a_dataset_that_dbt_can_make_is_no_fault_and_is_not_made(on_bigquery: Runs, bigquery: BigQuery) -> None:
    bigquery.datasets = set()
    assert on_bigquery().check().get("error") is None
    assert ["create schema if not exists `acme-data`.`analytics`" in sql for sql in bigquery.planned] == [True]
    assert bigquery.datasets == set()


@pytest.mark.parametrize(
    ("turn", "identity", "words"),
    [
        pytest.param(_other_role, {}, "rejected by the attribute condition", marks=pytest.mark.slow),
        (_other_audience, {}, "Audience doesn't match"),
        pytest.param(_too_late, {}, "Signature has expired", marks=pytest.mark.slow),
        pytest.param(_no_grant, {}, "User does not have bigquery.jobs.create permission", marks=pytest.mark.slow),
        pytest.param(
            lambda *_: None,
            {"service_account": "dbt-staging@acme-data.iam.gserviceaccount.com"},
            "Unable to generate access token",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_whoever_is_not_the_service_account_is_access_denied(
    on_bigquery: Runs, bigquery: BigQuery, cloud: Aws, turn: Callable[[BigQuery, Aws], None], identity: dict[str, str], words: str
) -> None:
    turn(bigquery, cloud)
    outcome = on_bigquery(**identity).check()
    assert outcome["error"] == "Dbt.AccessDenied"
    assert words in outcome["message"]
