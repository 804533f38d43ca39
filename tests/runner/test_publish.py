"""What of a dbt project becomes a release, and that only a project that parses becomes one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dbt_runner import publish, publish_dbt, release, stage
from dbt_runner import tree as trees
from dbt_runner.errors import COMPILATION_ERROR, INVALID_REQUEST, RELEASE_NOT_FOUND
from dbt_runner.store import Store
from runner.releases import ALICE, BOB, objects, refused, write

# One worker publishes the example.
pytestmark = pytest.mark.xdist_group("publish")

SECRET = "hunter2-in-a-file"


# --- staging ---------------------------------------------------------------------------------------------------------


def test_a_link_back_to_its_own_folder_ends(tmp_path: Path) -> None:
    """As dbt makes it for a package's integration tests, whose project names the package around it."""
    write(tmp_path, {"dbt_project.yml": "name: pkg", "macros/m.sql": "", "integration_tests/dbt_project.yml": "name: it"})
    (tmp_path / "integration_tests/dbt_packages").mkdir()
    (tmp_path / "integration_tests/dbt_packages/pkg").symlink_to("../..")
    assert sorted(trees.files(tmp_path / "integration_tests", roots=[tmp_path])) == [
        "dbt_packages/pkg/dbt_project.yml",
        "dbt_packages/pkg/macros/m.sql",
        "dbt_project.yml",
    ]


def test_a_project_may_lie_in_the_package_that_it_names(tmp_path: Path) -> None:
    package = write(tmp_path / "pkg", {"dbt_project.yml": "name: pkg", "macros/m.sql": "", "integration_tests/target/x": ""})
    project = write(package / "integration_tests", {"dbt_project.yml": "name: it", "packages.yml": "packages: [{local: ../}]"})
    staged = stage.stage(stage.read_project(project), tmp_path / "copy")
    assert (staged.project.root, staged.stands_for) == (tmp_path / "copy/integration_tests", package)
    found = sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert found == ["dbt_project.yml", "integration_tests/dbt_project.yml", "integration_tests/packages.yml", "macros/m.sql"]


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"dbt_project.yml": "name: shop"})
    (tmp_path / "gone.sql").symlink_to("nowhere.sql")
    assert "gone.sql is a link to nothing" in refused(INVALID_REQUEST, lambda: stage.files(tmp_path))


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        ({"models/a.sql": ""}, "has no dbt_project.yml"),
        ({"dbt_project.yml": "- a list"}, "must hold keys and values"),
        ({"dbt_project.yml": "a: b: c"}, "cannot be read"),
        ({"dbt_project.yml": "version: 1"}, "has no name"),
        ({"dbt_project.yml": "name: shop\npackages-install-path: ../packages"}, "packages-install-path must be a plain path below"),
        (
            {"dbt_project.yml": "name: shop\npackages-install-path: \"{{ env_var('P') }}\""},
            "packages-install-path must be a plain path below",
        ),
    ],
)
def test_what_is_no_dbt_project_is_refused(store: Store, tmp_path: Path, contents: dict[str, str], says: str) -> None:
    project = write(tmp_path / "shop", contents)
    assert says in refused(INVALID_REQUEST, lambda: publish_(store, project))


def test_a_folder_that_is_not_there_is_refused(store: Store, tmp_path: Path) -> None:
    assert "there is no folder" in refused(INVALID_REQUEST, lambda: publish_(store, tmp_path / "nowhere"))


def test_a_local_package_that_is_not_there_is_named(store: Store, tmp_path: Path) -> None:
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop", "packages.yml": "packages: [{local: ../gone}]"})
    message = refused(INVALID_REQUEST, lambda: publish_(store, project))
    assert "../gone" in message and str(tmp_path / "gone") in message


# --- the choice of the adapter ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        (["duckdb"], "duckdb"),
        (["duckdb", "postgres"], "postgres"),
        (["postgres", "redshift"], "redshift"),
        (["duckdb", "postgres", "snowflake"], "snowflake"),
    ],
)
def test_the_adapter_is_the_one_that_is_installed(monkeypatch: pytest.MonkeyPatch, installed: list[str], chosen: str) -> None:
    monkeypatch.setattr(publish, "_is_installed", lambda kind: kind in installed)
    assert publish.choose_adapter(None, None) == chosen


def test_the_adapter_is_what_was_asked_for_or_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_is_installed", lambda kind: kind in ("duckdb", "snowflake", "bigquery"))
    assert publish.choose_adapter("bigquery", "snowflake") == "bigquery"
    assert publish.choose_adapter(None, "duckdb") == "duckdb"
    assert "--adapter" in refused(INVALID_REQUEST, lambda: publish.choose_adapter(None, None))
    assert "dbt-redshift" in refused(INVALID_REQUEST, lambda: publish.choose_adapter(None, "redshift"))
    assert "known are athena" in refused(INVALID_REQUEST, lambda: publish.choose_adapter("oracle", None))


def test_without_any_adapter_there_is_nothing_to_parse_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_is_installed", lambda kind: False)
    assert "no dbt adapter is installed" in refused(INVALID_REQUEST, lambda: publish.choose_adapter(None, None))


# --- publishing with the real dbt ------------------------------------------------------------------------------------

SHOP = {
    "dbt_project.yml": "name: shop\nprofile: not_ours\ntarget-path: build/out\npackages-install-path: vendor/dbt\n",
    "models/orders.sql": "select 1 as id",
    "models/totals.sql": "select count(*) as n from {{ ref('orders') }} join {{ ref('calendar') }} on {{ always() }}",
    # A description of a model that happens to be called profiles.
    "models/people/profiles.sql": "select 1 as id",
    "models/people/profiles.yml": "models: [{name: profiles, columns: [{name: id, data_tests: [unique]}]}]",
    "packages.yml": "packages: [{local: ../../shared}]",
}
NOT_RELEASED = {
    "profiles.yml": f"not_ours: {{outputs: {{dev: {{type: postgres, password: {SECRET}}}}}}}",
    "ci/profiles.yml": f"not_ours: {{outputs: {{ci: {{type: postgres, password: {SECRET}}}}}}}",
    ".env": SECRET,
    "models/.env.local": SECRET,
    ".user.yml": "id: 1",
    "shop.duckdb": SECRET,
    "data/shop.duckdb.wal": SECRET,
    "logs/dbt.log": SECRET,
    "target/manifest.json": "{}",
    "build/out/manifest.json": "{}",
    "dbt_packages/old/dbt_project.yml": "name: old",
    ".venv/lib/x.py": "",
    "python/pyvenv.cfg": "",
    "python/lib/x.py": "",
    "models/__pycache__/x.pyc": "",
}


def publish_(store: Store, project: Path, version: str = "1.4.2", **options: Any) -> release.Published:
    return publish.publish(store, project, version, **{"adapter": "duckdb", "author": ALICE, "on_progress": lambda line: None, **options})


def tree(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@dataclass(frozen=True)
class Example:
    """A project with everything in it that is difficult, once published."""

    checkout: Path
    untouched: bool
    done: release.Published
    progress: list[str]
    objects: dict[str, bytes]
    unpacked: Path
    commit: str


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, audit_store: Callable[[], contextlib.AbstractContextManager[Store]]) -> Example:
    top = tmp_path_factory.mktemp("published")
    checkout = top / "checkout"
    project = write(checkout / "analytics/shop", SHOP)
    write(checkout / "shared", {"dbt_project.yml": "name: shared", "models/calendar.sql": "select 1 as day", "target/x": SECRET})
    write(checkout / "shared", {"packages.yml": "packages: [{local: ../../common/macros_of_all}]"})
    write(
        checkout / "common/macros_of_all",
        {"dbt_project.yml": "name: all_macros", "macros/always.sql": "{% macro always() %}true{% endmacro %}"},
    )
    (project / "models/linked.sql").symlink_to("orders.sql")
    # Started by a git hook, these tests must not touch the repository of the hook.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "-q", "-b", "trunk"), ("add", "."), ("commit", "-q", "-m", "all")):
        subprocess.run([*git, *command], cwd=checkout, env=outside, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, env=outside, check=True, capture_output=True, text=True)
    write(project, NOT_RELEASED)
    before = tree(checkout)

    with pytest.MonkeyPatch.context() as patch, audit_store() as store:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        # A CI job's own settings of dbt must not lead the copy astray.
        patch.setenv("DBT_PROFILES_DIR", "/nowhere")
        patch.setenv("DBT_TARGET_PATH", str(checkout / "astray"))
        patch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        progress: list[str] = []
        done = publish_(store, project, on_progress=progress.append)
        fetched = release.fetch(store, "1.4.2", top / "unpacked")
        return Example(checkout, tree(checkout) == before, done, progress, objects(store), fetched.project, head.stdout.strip())


@pytest.mark.slow
def test_publishing_reads_the_checkout_and_changes_nothing_in_it(example: Example) -> None:
    assert example.untouched


def test_a_release_holds_the_project_and_its_packages_and_nothing_else(example: Example) -> None:
    assert sorted(tree(example.unpacked)) == sorted(
        [
            *SHOP,
            "models/linked.sql",
            "package-lock.yml",
            "vendor/dbt/shared/dbt_project.yml",
            "vendor/dbt/shared/models/calendar.sql",
            "vendor/dbt/shared/packages.yml",
            "vendor/dbt/all_macros/dbt_project.yml",
            "vendor/dbt/all_macros/macros/always.sql",
        ]
    )


def test_links_are_replaced_by_what_they_lead_to(example: Example) -> None:
    assert not [path for path in example.unpacked.rglob("*") if path.is_symlink()]
    assert (example.unpacked / "models/linked.sql").read_text() == SHOP["models/orders.sql"]


def test_no_secret_of_the_checkout_gets_into_the_bucket(example: Example) -> None:
    everything = [*example.objects.values(), *tree(example.unpacked).values()]
    assert not [content for content in everything if SECRET.encode() in (content if isinstance(content, bytes) else content.encode())]


def test_the_manifest_carries_the_version_and_the_commit(example: Example) -> None:
    manifest = json.loads(example.objects["releases/1.4.2/manifest.json"])
    assert manifest["metadata"]["env"] == {"RELEASE": "1.4.2", "GIT_COMMIT": example.commit, "GIT_BRANCH": "trunk", "GIT_DIRTY": "true"}
    assert "model.shared.calendar" in manifest["nodes"]
    assert str(example.checkout) not in example.objects["releases/1.4.2/manifest.json"].decode()


def test_the_description_says_what_was_published(example: Example) -> None:
    described = json.loads(example.objects["releases/1.4.2/release.json"])
    assert described.pop("published_at") == example.done.release.published_at
    assert described == {
        "version": "1.4.2",
        "digest": release._sha256(example.objects["releases/1.4.2/bundle.tar.gz"]),
        "manifest_digest": release._sha256(example.objects["releases/1.4.2/manifest.json"]),
        "size": len(example.objects["releases/1.4.2/bundle.tar.gz"]),
        "git_commit": example.commit,
        "git_branch": "trunk",
        "git_dirty": True,
        "dbt_version": json.loads(example.objects["releases/1.4.2/manifest.json"])["metadata"]["dbt_version"],
        "adapter": "duckdb",
        "project": "shop",
        "author": ALICE,
        "counts": {"model": 5, "test": 1},
    }


def test_progress_says_what_happens_and_what_is_not_committed(example: Example) -> None:
    assert [line.split(" ")[0] for line in example.progress] == ["the", "copying", "installing", "parsing", "uploading"]
    assert "not committed" in example.progress[0]
    assert "duckdb" in example.progress[3]


@pytest.mark.slow
def test_the_same_project_is_the_same_content_wherever_it_lies(store: Store, tmp_path: Path) -> None:
    """Parsed for Postgres, whose server nobody started: parsing opens no connection."""
    files = {"dbt_project.yml": "name: shop", "models/a.sql": "select 1 as id"}
    first = publish_(store, write(tmp_path / "1", files), adapter="postgres")
    assert (first.new, first.release.adapter, first.release.git_commit, first.release.git_dirty) == (True, "postgres", None, None)

    stored = objects(store)
    again = publish_(store, write(tmp_path / "somewhere" / "2", {**files, "profiles.yml": SECRET}), author=BOB)
    assert again == release.Published(first.release, new=False)

    message = refused(INVALID_REQUEST, lambda: publish_(store, write(tmp_path / "3", {**files, "models/a.sql": "select 2"})))
    assert message == "version 1.4.2 is published with other content; choose another version"
    assert objects(store) == stored


@pytest.mark.slow
def test_a_project_may_need_variables_to_parse_and_a_tag_to_be_named(store: Store, tmp_path: Path) -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop\nmodels: {+materialized: \"{{ var('kind') }}\"}"})
    write(project, {"models/a.sql": "select 1 as id"})
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "all"), ("tag", "v2.0.0")):
        subprocess.run([*git, *command], cwd=project, env=outside, check=True)
    assert "Required var 'kind' not found" in refused(COMPILATION_ERROR, lambda: publish_(store, project, "auto"))
    done = publish_(store, project, "auto", vars={"kind": "table"})
    assert (done.new, done.release.version, done.release.git_dirty) == (True, "2.0.0", False)
    assert release.find(store, "2.0.0").git_commit == done.release.git_commit


@pytest.mark.slow
def test_a_project_that_does_not_parse_is_not_published(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Somebody's own settings of dbt must not make it silent.
    monkeypatch.setenv("DBT_LOG_LEVEL", "none")
    monkeypatch.setenv("DBT_LOG_FORMAT", "text")
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop", "models/a.sql": "select * from {{ ref('nothing_there') }}"})
    message = refused(COMPILATION_ERROR, lambda: publish_(store, project))
    assert "model.shop.a" in message and "depends on a node named 'nothing_there' which was not found" in message
    assert "Traceback" not in message
    assert not objects(store)
    refused(RELEASE_NOT_FOUND, lambda: release.find(store, "1.4.2"))


def test_packages_that_cannot_be_installed_are_reported_in_dbts_words(store: Store, tmp_path: Path) -> None:
    packages = f"packages: [{{git: 'file://{tmp_path}/no_such_repository', revision: main}}]"
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop", "packages.yml": packages})
    message = refused(COMPILATION_ERROR, lambda: publish_(store, project))
    assert "packages cannot be installed" in message and "no_such_repository" in message
    assert not objects(store)


def test_what_is_parsed_is_what_runs_will_get(store: Store, tmp_path: Path) -> None:
    """The package lies at an absolute path, where dbt finds all of its files; one of them does not belong into a release."""
    package = write(tmp_path / "package", {"dbt_project.yml": "name: package", "models/.venv/b.sql": "select 1"})
    project = write(tmp_path / "shop", {"dbt_project.yml": "name: shop", "models/a.sql": "select * from {{ ref('b') }}"})
    write(project, {"packages.yml": f"packages: [{{local: {package}}}]"})
    message = refused(INVALID_REQUEST, lambda: publish_(store, project))
    assert f"{package}/models/.venv/b.sql would not be in the release" in message

    (package / "models/.venv").rename(package / "models/mart")
    assert publish_(store, project).new
    assert (release.fetch(store, "1.4.2", tmp_path / "out").project / "dbt_packages/package/models/mart/b.sql").is_file()


def test_dbts_message_comes_without_its_stack_trace() -> None:
    def line(level: str, msg: str, **data: str) -> str:
        return json.dumps({"info": {"level": level, "msg": msg}, "data": data})

    stdout = "\n".join(
        [
            line("info", "Running"),
            "not JSON",
            line("error", "Encountered an error:\nNo hub"),
            line("error", "Traceback", stack_trace="Traceback"),
        ]
    )
    assert publish_dbt.said(stdout, "warning: noise") == "No hub"
    assert publish_dbt.said(line("info", "Running"), "No such option\n") == "No such option"


OWN = {
    "dbt_project.yml": "name: shop\nprofile: shop\n",
    "models/a.sql": "select 1 as id",
    "profiles.yml": "shop: { outputs: { prod: { type: duckdb, path: x.duckdb } } }",
}


@pytest.mark.slow
def test_a_projects_own_profile_is_part_of_a_release_only_where_that_was_asked_for(store: Store, tmp_path: Path) -> None:
    """Else it is left out: it is one of NOT_RELEASED."""
    publish_(store, write(tmp_path / "shop", OWN), with_profiles=True)
    assert (release.fetch(store, "1.4.2", tmp_path / "unpacked").project / "profiles.yml").is_file()


def test_a_profile_with_a_secret_is_not_published(store: Store, tmp_path: Path) -> None:
    project = write(tmp_path / "shop", {**OWN, "profiles.yml": "shop: { outputs: { ci: { type: postgres, password: hunter2 } } }"})
    message = refused(COMPILATION_ERROR, lambda: publish_(store, project, with_profiles=True))
    assert "output ci holds password" in message and "hunter2" not in message
    assert objects(store) == {}
