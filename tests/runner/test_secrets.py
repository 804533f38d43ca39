"""Attempts that tell every secret they know, in every way that a worker has: none of them is in anything that is left behind.

The same attempt with a mask that masks nothing shows that the search would find them.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from dbt_runner.masking import Mask
from dbt_runner.store import Store
from runner import projects
from runner.attempts import Run, publish
from runner.sts import CREDENTIALS, Sts, sts
from runner.traces import places, written

__all__ = ["sts"]

DECLARED = "declared/s3cret+of=the team"
OF_DBT = "s3cret-of-dbt-0123456789"
PLAIN = "no-secret-at-all-0123456789"
BROKERED = (CREDENTIALS["SecretAccessKey"], CREDENTIALS["SessionToken"])

# Tells the values of its variables, and the credentials that it is served, wherever a worker can write.
TELLS = """
import urllib.request
bearer = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
request = urllib.request.Request(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], headers={"Authorization": bearer})
with urllib.request.urlopen(request) as answer:
    served = json.load(answer)
secrets = [os.environ["API_KEY"], os.environ["DBT_ENV_SECRET_TOKEN"], os.environ["PLAIN"], bearer,
           served["SecretAccessKey"], served["Token"]]
print(*secrets, flush=True)
sys.stdout.write(secrets[0][:5]); sys.stdout.flush(); time.sleep(0.05); print(secrets[0][5:], flush=True)
print(*secrets, file=sys.stderr, flush=True)
said = " ".join(secrets)
say("LogLine", level="info", message=said)
say("Parsed", index=0, reasons=secrets)
exception = {"type": "DbtDatabaseError", "bases": ["DbtDatabaseError", "DbtRuntimeError"], "message": said, "codes": {}, "causes": []}
for number, secret in enumerate(secrets):
    say("NodeResult", command=0, unique_id=f"model.tiny.n{number}", resource_type="model", name=f"n{number}", status="error",
        message="x" * (4000 - len(secret) + 4) + secret, relation=secret, failure=exception)
for name in ("run_results.json", "manifest.json", "dbt.log", "index.html"):
    with open(os.path.join(spec["artifacts"], name), "w") as file:
        json.dump({"results": secrets, said: said}, file)
say("CommandResult", index=0, success=False, seconds=1.0, selected=1, exception=exception)
say("Finished")
"""


@pytest.fixture
def run(store: Store, environment: dict[str, Any], tmp_path: Path) -> Run:
    environment["warehouse"]["settings"]["path"] = str(tmp_path / "warehouse.duckdb")
    run = Run(store, environment)
    run.environment.update(
        DBT_RUNNER_SECRETS=json.dumps({"API_KEY": "arn:aws:ssm:eu-central-1:123456789012:parameter/key"}),
        API_KEY=DECLARED,
        DBT_ENV_SECRET_TOKEN=OF_DBT,
        PLAIN=PLAIN,
    )
    return run


EVERYWHERE = {
    "said",
    *("run_results.json", "manifest.json", "dbt.log", "index.html"),
    # The rows of the long-term audit, and the report.
    *("r-1.build.1.jsonl", "report.html"),
    "RUN#prod#r-1 STEP#01#build#1",
}


@pytest.mark.parametrize("masks", [True, False])
def test_nothing_that_a_worker_tells_is_left_with_a_secret_in_it(
    run: Run, tmp_path: Path, sts: Sts, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, masks: bool
) -> None:
    publish(run.store, tmp_path / "project", {"dbt_project.yml": projects.PROJECT})
    settings = {"account": "o-a", "role": "R", "warehouse": "W", "database": "D", "schema": "S"}
    run.config["warehouse"] = {"type": "snowflake", "settings": settings, "identity": {}}
    run.sts = lambda: sts.allows().client
    run.environment.update(projects.scripted(tmp_path / "scripted", TELLS))
    if not masks:
        monkeypatch.setattr(Mask, "_spans", lambda self, data, **how: [])
    assert run.attempt() == 10
    found = written(run.store, capfd.readouterr().out)
    for secrets, numbers in (([DECLARED], [0]), ([OF_DBT], [1]), (BROKERED, [4, 5]), ([PLAIN], [2])):
        somewhere = places(found, secrets)
        if masks and secrets != [PLAIN]:
            assert somewhere == set()
        else:
            assert somewhere >= EVERYWHERE | {f"RUN#prod#r-1 NODE#build#model.tiny.n{number}" for number in numbers}
    if masks:
        # Each message was longer than what is kept of it, and the secret its end.
        assert places(found, [secret[:-5] for secret in (DECLARED, OF_DBT, *BROKERED)]) == set()


def test_what_real_dbt_writes_holds_no_secret_and_no_parse_with_one_is_kept(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = """
{{ config(materialized='table', meta={'key': env_var('NAME')}) }} select cast('{{ env_var("NAME") }}' as int) as key
"""
    files = {
        "dbt_project.yml": projects.PROJECT,
        "models/told.sql": model.replace("NAME", "API_KEY"),
        "models/plain.sql": model.replace("NAME", "PLAIN"),
        "models/models.yml": "models: [{ name: told, description: \"{{ env_var('API_KEY') }}\" }]",
        "macros/tell.sql": "{% macro tell() %}{% do log(env_var('API_KEY'), info=True) %}{{ print(env_var('API_KEY')) }}{% endmacro %}",
        # As Jinja and DuckDB write a value otherwise: in the log, in SQL, and in an error of the warehouse.
        "models/written.sql": """
{{ config(materialized='table') }}{% set key = env_var('API_KEY') %}
{% do log(key | urlencode, info=True) %}{% do log(key | upper, info=True) %}
{% do log([key, {key: key | tojson}] | tojson | tojson, info=True) %}{% do log(key | e, info=True) %}
select error('{{ key | urlencode }} ' || hex('{{ key }}') || ' ' || base64('{{ key }}'::blob)) as told
""",
    }
    files["dbt_project.yml"] += 'on-run-start: "{{ tell() }}"\n'
    publish(run.store, tmp_path / "project", files)
    assert run.attempt() == 10
    found = written(run.store, capfd.readouterr().out)
    assert places(found, [PLAIN]) >= {"said", "manifest.json", "run_results.json", "RUN#prod#r-1 STEP#01#build#1"}
    assert places(found, [DECLARED]) == set()
    raw = DECLARED.encode()
    written_otherwise = [quote(DECLARED), DECLARED.upper(), raw.hex(), raw.hex().upper(), base64.b64encode(raw).decode()]
    assert places(found, written_otherwise) == set()
    assert "model.tiny.written" in run.nodes() and run.nodes()["model.tiny.written"]["message"].count("*****") >= 3
    assert "*****" in found["said"] and not [place for place in found if place.startswith("cache/")]
    assert run.outcome()["parse"]["cache"] == "none"
    assert {"model.tiny.told", "model.tiny.plain"} <= set(run.nodes())


# Tells a secret and prints it at once, many times over: the two pipes know no order.
DERIVES = """
for number in range(200):
    secret = f"derived-{number:04}-of-a-driver"
    say("LogLine", level="info", message="x" * 2000)
    say("Secret", value=secret)
    print(secret, flush=True)
    print(secret, file=sys.stderr, flush=True)
say("LogLine", level="info", message=secret)
say("Secret", value="derived-of-no-message", more=1)
write('{"type":"Secret","value":"derived-of-half')
"""


def test_what_a_driver_derives_is_masked_from_the_moment_it_is_told(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    publish(run.store, tmp_path / "project", {"dbt_project.yml": projects.PROJECT})
    run.environment.update(projects.scripted(tmp_path / "scripted", DERIVES))
    run.attempt()
    found = written(run.store, capfd.readouterr().out)
    assert places(found, ["derived-"]) == set()
    assert [json.loads(line)["message"] for line in found["said"].splitlines()].count("*****") == 401


def test_short_values_are_named_and_not_masked(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run.environment.update(API_KEY="short", **projects.scripted(tmp_path / "scripted", "print('short cut', flush=True)\ndone()\n"))
    publish(run.store, tmp_path / "project", {"dbt_project.yml": projects.PROJECT})
    assert run.attempt() == 0
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    [warning] = [line for line in lines if "variables" in line]
    assert (warning["level"], warning["variables"]) == ("warning", ["API_KEY"])
    assert "short cut" in [line["message"] for line in lines]


@pytest.mark.parametrize("value", ["{", "[]", '"x"'])
def test_a_declaration_that_cannot_be_read_is_no_reason_to_run_without_a_mask(run: Run, value: str) -> None:
    from dbt_runner.errors import RUNNER_ERROR
    from runner.releases import refused

    run.environment["DBT_RUNNER_SECRETS"] = value
    assert "DBT_RUNNER_SECRETS" in refused(RUNNER_ERROR, run.attempt)
