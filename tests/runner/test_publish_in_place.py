"""A release is the project in place: what dbt reads there and not of the release is refused by name; packages are taken as they lie."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbt_runner import bundle, packages, publish, publish_dbt, release, stage
from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.publisher import Publisher
from dbt_runner.release_parse import Report
from runner.releases import ALICE, refused, write

pytestmark = pytest.mark.xdist_group("publish")


def parsed(project: Path, folder: Path, said: list[str] | None = None, **options: Any) -> tuple[release.Candidate, Path]:
    folder.mkdir()
    packed = publish.pack(project, "1.0.0", "duckdb", folder, (said if said is not None else []).append, **options)
    return publish.parse(packed, ALICE, lambda _: None), folder / "unpacked"


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


ELSEWHERE = {
    "models/far.sql": "select 1 as id",
    "macros/generate_schema_name.sql": "{% macro generate_schema_name(custom_schema_name, node) %}elsewhere{% endmacro %}",
    "seeds/s.csv": "id\n1\n",
    "tests/t.sql": "select 1 where false",
    "snapshots/h.sql": "{% snapshot h %}{{ config(unique_key='id', strategy='check', check_cols='all') }} select 1 as id{% endsnapshot %}",
    "analyses/a.sql": "select 1",
    "docs/d.md": "{% docs d %}text{% enddocs %}",
    "assets/logo.svg": "<svg/>",
}


def test_all_files_that_dbt_reads_in_place_and_a_release_would_not_have_are_named(tmp_path: Path) -> None:
    """Each setting of paths leads outside once, one of them by an absolute path; and names that are left out are used for models."""
    write(tmp_path / "shared", ELSEWHERE)
    settings = {
        "name": "shop",
        "model-paths": ["models", "../shared/models"],
        "macro-paths": ["macros", str(tmp_path / "shared/macros")],
        "seed-paths": ["../shared/seeds"],
        "test-paths": ["tests", "../shared/tests"],
        "snapshot-paths": ["models/../../shared/snapshots"],
        "analysis-paths": ["../shared/analyses"],
        "docs-paths": ["docs", "../shared/docs"],
        "asset-paths": ["../shared/assets"],
    }
    hidden = ("models/.venv/a.sql", "models/node_modules/b.sql", "models/.aws/c.sql", "macros/env/d.sql")
    project = write(tmp_path / "shop", {"dbt_project.yml": json.dumps(settings), **dict.fromkeys(hidden, "select 1 as id")})
    write(project, {"macros/env/pyvenv.cfg": "", "models/ok.sql": "select 1 as id"})
    message = refused(INVALID_REQUEST, lambda: parsed(project, tmp_path / "work"))
    for name in ELSEWHERE:
        assert str(tmp_path / "shared" / name) in message
    assert "lie outside of the project: move them into it, or make their folder a local package" in message
    for name in hidden:
        assert name in message
    assert "would not be in the release" in message and "models/ok.sql" not in message


def test_a_long_list_is_cut_and_counted() -> None:
    message = publish_dbt._difference(Report(missing=[f"models/.venv/m{n}.sql" for n in range(14)]), Path("/shop"))
    assert message.count("models/.venv/") == 10 and "and 4 more would not be" in message


def _local_time(project: Path) -> dict[str, Any]:
    """A project with packages of each kind: of the hub, by git, and local ones, one of them with much that dbt does not read."""
    write(project.parent / "shared", {"dbt_project.yml": "name: shared", "models/far.sql": "select 1 as id", "docs/image.png": "x" * 100})
    write(project.parent / "shared", {"README.md": "much", "integration_tests/dbt_project.yml": "name: it", "models/far.md": "text"})
    write(
        project / "packages/inside",
        {"dbt_project.yml": "name: inside\nmacro-paths: [jinja]", "jinja/i.sql": "{% macro i() %}1{% endmacro %}"},
    )
    write(project / "packages/inside", {"macros/unused.sql": "", "notes/image.png": "x"})
    listed = [{"package": "acme/hub", "version": "1.2.0"}, {"git": "https://git.example/acme/by_git.git", "revision": "v1"}]
    listed += [{"local": "../shared"}, {"local": "packages/inside"}]
    write(
        project,
        {
            "dbt_project.yml": "name: shop",
            "models/a.sql": "select {{ hub.one() }} + {{ inside.i() }} as id from {{ ref('far') }} join {{ ref('near') }} on true",
            "packages.yml": json.dumps({"packages": listed}),
            "dbt_packages/hub/dbt_project.yml": "name: hub\nversion: 1.2.0",
            "dbt_packages/hub/macros/one.sql": "{% macro one() %}1{% endmacro %}",
            "dbt_packages/hub/integration_tests/models/x.sql": "select 1",
            "dbt_packages/by_git/dbt_project.yml": "name: by_git",
            "dbt_packages/by_git/models/near.sql": "select 1 as id",
        },
    )
    (project / "dbt_packages/shared").symlink_to("../../shared")
    (project / "dbt_packages/inside").symlink_to("../packages/inside")
    entries = [
        {"package": "acme/hub", "version": "1.2.0", "name": "hub"},
        {"git": listed[1]["git"], "revision": "0" * 40, "name": "by_git"},
    ]
    entries += [{"local": "../shared", "name": "shared"}, {"local": "packages/inside", "name": "inside"}]
    lock = {"packages": entries, "sha1_hash": packages._hash(stage.read_project(project))}
    write(project, {"package-lock.yml": json.dumps(lock)})
    return lock


def test_installed_packages_that_are_those_of_the_lock_are_taken_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And of each package, only what dbt reads."""
    project = tmp_path / "shop"
    _local_time(project)
    monkeypatch.setattr("dbt_runner.publish_dbt.Dbt.deps", lambda *_: pytest.fail("dbt deps was called"))
    said: list[str] = []
    _, unpacked = parsed(project, tmp_path / "work", said)
    assert "taking the packages of dbt_packages, which are those of package-lock.yml: by_git, hub, inside, shared" in said
    assert tree(unpacked) == [
        "dbt_packages/by_git/dbt_project.yml",
        "dbt_packages/by_git/models/near.sql",
        "dbt_packages/hub/dbt_project.yml",
        "dbt_packages/hub/macros/one.sql",
        "dbt_packages/inside/dbt_project.yml",
        "dbt_packages/inside/jinja/i.sql",
        "dbt_packages/shared/dbt_project.yml",
        "dbt_packages/shared/models/far.md",
        "dbt_packages/shared/models/far.sql",
        "dbt_project.yml",
        "models/a.sql",
        "package-lock.yml",
        "packages.yml",
        "packages/inside/dbt_project.yml",
        "packages/inside/jinja/i.sql",
    ]


def _other_version(project: Path, lock: dict[str, Any]) -> None:
    write(project, {"dbt_packages/hub/dbt_project.yml": "name: hub\nversion: 1.1.0"})


def _other_name(project: Path, lock: dict[str, Any]) -> None:
    write(project, {"dbt_packages/hub/dbt_project.yml": "name: bub\nversion: 1.2.0"})


def _other_packages(project: Path, lock: dict[str, Any]) -> None:
    write(project, {"packages.yml": "packages: [{local: ../shared}]"})


def _jinja(project: Path, lock: dict[str, Any]) -> None:
    write(project, {"packages.yml": "packages: [{git: \"{{ env_var('A') }}\"}]"})


def _no_lock(project: Path, lock: dict[str, Any]) -> None:
    (project / "package-lock.yml").unlink()


def _a_package_less(project: Path, lock: dict[str, Any]) -> None:
    (project / "dbt_packages/shared").unlink()


def _one_more(project: Path, lock: dict[str, Any]) -> None:
    write(project, {"dbt_packages/more/dbt_project.yml": "name: more"})


def _other_commit(project: Path, lock: dict[str, Any]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "all")):
        subprocess.run([*git, *command], cwd=project / "dbt_packages/by_git", env=environment, check=True)


def _local_elsewhere(project: Path, lock: dict[str, Any]) -> None:
    (project / "dbt_packages/shared").unlink()
    write(project / "dbt_packages/shared", {"dbt_project.yml": "name: shared"})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_other_version, "hub is version 1.1.0, package-lock.yml has 1.2.0"),
        (_other_name, "hub has no dbt_project.yml of that name"),
        (_other_packages, "package-lock.yml was made for another packages.yml"),
        (_jinja, "package-lock.yml was made for another packages.yml"),
        (_no_lock, "there is no package-lock.yml"),
        (_a_package_less, "shared of package-lock.yml is not in dbt_packages"),
        (_one_more, "package-lock.yml does not name more"),
        (_other_commit, "by_git is at "),
        (_local_elsewhere, "shared is a copy of a local package"),
    ],
)
def test_packages_that_are_not_those_of_the_lock_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path, dict[str, Any]], None], says: str
) -> None:
    class Called(Exception):
        """dbt deps was called."""

    def deps(*_: object) -> None:
        raise Called

    project = tmp_path / "shop"
    change(project, _local_time(project))
    monkeypatch.setattr("dbt_runner.publish_dbt.Dbt.deps", deps)
    said: list[str] = []
    with pytest.raises(Called):
        parsed(project, tmp_path / "work", said)
    assert any(line.startswith(f"installing packages (dbt deps): {says}") for line in said)


def test_a_vendored_package_that_dbt_deps_would_remove_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "shop"
    _local_time(project)
    write(project, {"dbt_packages/vendored/dbt_project.yml": "name: vendored"})
    (tmp_path / "stage").mkdir()
    source = stage.read_project(project)
    staged = stage.stage(source, tmp_path / "stage")

    def deps() -> None:
        for name in ("hub", "by_git", "shared", "inside"):
            (staged.project.root / "dbt_packages" / name).mkdir(parents=True)

    message = refused(INVALID_REQUEST, lambda: packages.install(source, staged, deps, lambda _: None))
    assert "dbt reads vendored in" in message and "local: PATH" in message


def test_vendored_packages_without_a_packages_yml_belong_to_the_release_and_variables_are_given_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_REGION", "eu")
    model = "{{ config(meta={'region': env_var('SHOP_REGION')}) }} select * from {{ ref('v') }}"
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop", "models/a.sql": model})
    write(project / "dbt_packages/vendored", {"dbt_project.yml": "name: vendored", "models/v.sql": "select 1 as id", "docs/x.png": ""})
    candidate, unpacked = parsed(project, tmp_path / "work", publisher=Publisher.of(os.environ, ["SHOP_REGION"]))
    assert candidate.counts["model"] == 2
    assert b'"region": "eu"' in candidate.manifest
    assert tree(unpacked / "dbt_packages") == ["vendored/dbt_project.yml", "vendored/models/v.sql"]


def test_a_link_in_a_package_that_leaves_it_is_refused(tmp_path: Path) -> None:
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop"})
    write(project / "dbt_packages/vendored", {"dbt_project.yml": "name: vendored", "models/v.sql": "select 1 as id"})
    (project / "dbt_packages/vendored/models/leak.md").symlink_to("/etc/hostname")
    assert "leak.md is a link that leaves" in refused(INVALID_REQUEST, lambda: parsed(project, tmp_path / "work"))


def test_a_large_bundle_comes_with_a_table_of_sizes(tmp_path: Path) -> None:
    files = {}
    for name, size in (("seeds/large.csv", 6_000_000), ("docs/img/a.png", 3_000_000), ("docs/img/b.png", 3_000_000), ("a.sql", 1)):
        write(tmp_path, {name: ""})
        (tmp_path / name).write_bytes(bytes(size))
        files[name] = tmp_path / name
    assert (
        bundle.sizes(files, 11_000_000)
        == [
            "warning: the bundle has 11.0 MB, and each run reads it; of 12.0 MB uncompressed:",
            "      6.0 MB  docs/img",
            "      6.0 MB  seeds/large.csv",
            "      0.0 MB  a.sql",
        ]
        or bundle.sizes(files, 11_000_000)[1] == "      6.0 MB  seeds/large.csv"
    )


def test_files_that_sql_names_outside_of_the_project_are_told() -> None:
    nodes = {
        "model.shop.a": {"raw_code": "select * from read_csv('../data/x.csv') join '/mnt/y.parquet' on true join 'seeds/z.csv' on true"},
        "model.shop.b": {"raw_code": "select '../a', '/path', 'x.csv' -- ../no.csv"},
    }
    sources = {"source.shop.s.t": {"meta": {"external_location": "../raw/{name}.csv"}}}
    assert [line.split(", which")[0] for line in publish._reads_elsewhere({"nodes": nodes, "sources": sources})] == [
        "warning: model.shop.a names the file ../data/x.csv",
        "warning: model.shop.a names the file /mnt/y.parquet",
        "warning: source.shop.s.t names the file ../raw/{name}.csv",
    ]


def test_a_profiles_yml_that_is_a_link_is_not_published(tmp_path: Path) -> None:
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop\nprofile: shop"})
    write(tmp_path / "home", {"profiles.yml": "shop: {outputs: {dev: {type: duckdb}}}"})
    (project / "profiles.yml").symlink_to(tmp_path / "home/profiles.yml")
    with pytest.raises(TypedError, match=r"profiles\.yml is a link"):
        parsed(project, tmp_path / "work", with_profiles=True)
