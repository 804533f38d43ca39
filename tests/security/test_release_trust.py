"""Releases that are not what an environment may run: whoever rewrites what a deployer can write, no worker sees them.

A hostile deployer is played by calls of boto3, and makes only those that the deployer's policy allows: items of RELEASE#* and of
POINTER#<env> replaced at will, and new objects of releases/*, pins/<env>/* and audit/promotions (with If-None-Match). That it can make no
others is proven in tests/terraform/test_isolation.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from dbt_runner import account, attempt, config, pins, promotion, promotion_audit, prune, release, runs
from dbt_runner.errors import INVALID_REQUEST, RELEASE_CORRUPT, RELEASE_NOT_FOUND, ErrorKind, TypedError
from dbt_runner.store import RELEASE_META, Store, pin_key, pointer_pk, release_key, release_pk, sha256_of
from runner import conftest as shared
from runner.attempts import RUN_KEY, Run
from runner.conftest import config_of
from runner.releases import ALICE, BOB, candidate, refused
from security.fuzzing import bounded

no_outside_settings, store, environment = shared.no_outside_settings, shared.store, shared.environment

GOOD, EVIL = "select 'good'", "select 'evil'"
SLIM_CI = {"state_target": "prod", "schema_suffixes": None}


class Started(Exception):
    """A worker would have run."""


@dataclass
class Runs:
    """Runs of `prod` up to the moment in which a worker would get the project.

    Attributes:
        seen: the model of each project that a worker would have run or parsed.
    """

    run: Run
    seen: list[str]
    number: int = 0

    def start(self, version: str, *, position: int = 1, project: str | None = None, **plan: Any) -> str | None:
        """The error of an attempt; None where a worker was started."""
        self.number += 1
        before = len(self.seen)
        self.run.release, self.run.plan = version, {"vars": {}, "full_refresh": False, **plan}
        self.run.write()
        if project is not None:
            changes, there = {"project": project}, "attribute_exists(pk)"
            self.run.store.update("ENV#prod", RUN_KEY, changes, condition=there, values={})
        assert self.run.start(position, self.number) != 0
        if len(self.seen) > before:
            return None
        name = "health_check" if position == 0 else "build"
        error: str = self.run.outcome(f"STEP#{position:02d}#{name}#{self.number}")["error"]
        return error


@pytest.fixture
def runs_(store: Store, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Runs:
    seen: list[str] = []

    class Supervisor:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def run(self, spec: Any) -> None:
            model = Path(spec.project or "", "models", "a.sql")
            seen.append(model.read_text() if spec.project and model.exists() else "")
            raise Started

    monkeypatch.setattr(attempt, "Supervisor", Supervisor)
    return Runs(Run(store, environment), seen)


@dataclass
class Deployer:
    """What the deployer's policy allows, without the code of dbt-runner."""

    store: Store

    def item(self, name: str, /, **attributes: Any) -> None:
        """Replaces a release's item; attributes that are None are left out."""
        self.store.put({"pk": release_pk(name), "sk": RELEASE_META, **{k: v for k, v in attributes.items() if v is not None}})

    def new(self, key: str, body: bytes) -> bool:
        """Writes a new object; whether it could."""
        try:
            boto3.client("s3").put_object(Bucket=self.store.bucket, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as exc:
            assert exc.response["Error"]["Code"] == "PreconditionFailed"
            return False
        return True

    def point(self, version: str, **attributes: Any) -> None:
        moved = {"version": version, "digest": "0" * 64, "manifest_digest": "0" * 64, "project": "shop", "promoted_by": "x"}
        self.store.put(
            {"pk": pointer_pk("prod"), "sk": "RELEASE#CURRENT", **moved, "promoted_at": "2026-11-23T00:00:00.000Z", **attributes}
        )

    def publish_again(self, evil: release.Candidate, **changes: Any) -> None:
        """Everything of a release that can be written, with other content."""
        digest, manifest_digest = sha256_of(evil.bundle), release._sha256(evil.manifest)
        meta = {
            "version": evil.version,
            "digest": digest,
            "manifest_digest": manifest_digest,
            "size": 1,
            "dbt_version": "1.11.16",
            "author": ALICE,
            "published_at": "2026-11-22T00:00:00.000Z",
            "project": "shop",
            "adapter": "duckdb",
            **changes,
        }
        described = {**meta, "git_commit": None, "git_branch": None, "git_dirty": None, "counts": {}}
        self.new(release_key(evil.version, release.BUNDLE), evil.bundle.read_bytes())
        self.new(release_key(evil.version, release.MANIFEST), evil.manifest)
        self.new(release_key(evil.version, release.DESCRIPTION), json.dumps(described).encode())
        self.item(evil.version, **meta)


@pytest.fixture
def deployer(store: Store) -> Deployer:
    return Deployer(store)


@pytest.fixture
def publish(store: Store, environment: dict[str, Any], tmp_path: Path) -> Callable[..., release.Candidate]:
    def publish(version: str, content: str = GOOD, project: str = "shop", *, commit: bool = True) -> release.Candidate:
        made = candidate(tmp_path / f"{version}-{len(content)}-{project}", content, version=version, stamp=content)
        made = replace(made, project=project)
        if version == release.CI:
            made = replace(made, version=release.ci_version(made.bundle))
        if commit:
            release.commit(store, made)
        return made

    return publish


Publish = Callable[..., release.Candidate]


@pytest.fixture
def pruned(store: Store, publish: Publish) -> release.Candidate:
    """Release 1.0, which prod ran and an administrator pruned; with other content, not published."""
    for version in ("1.0", "1.1", "1.2"):
        publish(version)
        promotion.promote(store, "prod", version, by=ALICE, reason=None)
    rules = prune.Rules(timedelta(0), 0, timedelta(0))
    gone = prune.prune(store, rules, by="admin", moment=datetime.now(UTC) + timedelta(days=1000))
    assert [verdict.version for verdict in gone if verdict.kept_for is None] == ["1.0"]
    return publish("1.0", EVIL, commit=False)


def lose_description(store: Store, version: str) -> None:
    """As an administrator who empties the release's folder by hand."""
    boto3.client("s3").delete_object(Bucket=store.bucket, Key=release_key(version, release.DESCRIPTION))


USES: dict[str, Callable[[Store, Runs, str], str | None]] = {
    "promote": lambda store, _, version: _kind(lambda: promotion.promote(store, "prod", version, by=BOB, reason=None)),
    "rollback": lambda store, _, version: _kind(lambda: promotion.rollback(store, "prod", version, by=BOB, reason=None)),
    "step": lambda _, runs, version: runs.start(version),
    "health check": lambda _, runs, version: runs.start(version, position=0),
    "defer_to": lambda _, runs, version: _deferred(runs, version),
}

# Those that need no promotion before; the place of an attempt may not go back.
IN_ORDER = ("health check", "step", "defer_to", "promote")


def _kind(call: Callable[[], object]) -> str | None:
    try:
        call()
    except TypedError as exc:
        return exc.kind.name
    return None


def _deferred(runs: Runs, version: str) -> str | None:
    """Of a run of 1.2 that compares with this version: parsing that is the first that a worker does."""
    return runs.start("1.2", defer_to=version)


# --- a version means one thing ------------------------------------------------------------------------------------------


@pytest.mark.attack("version")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("lost", [False, True], ids=["pruned", "emptied by hand"])
def test_a_pruned_version_is_never_another_release(
    store: Store, runs_: Runs, deployer: Deployer, pruned: release.Candidate, use: str, lost: bool
) -> None:
    if lost:
        lose_description(store, "1.0")
    deployer.publish_again(pruned)
    assert USES[use](store, runs_, "1.0") == RELEASE_CORRUPT.name
    assert EVIL not in runs_.seen


@pytest.mark.control("version")
@pytest.mark.parametrize("use", USES)
def test_without_pins_an_emptied_version_is_another_release(
    store: Store, runs_: Runs, deployer: Deployer, pruned: release.Candidate, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pins, "hold", lambda *_, **__: None)
    lose_description(store, "1.0")
    deployer.publish_again(pruned)
    assert USES[use](store, runs_, "1.0") is None


@pytest.mark.attack("version")
@pytest.mark.parametrize("use", ["step", "health check", "defer_to"])
def test_the_description_alone_holds_a_version_that_this_environment_never_took(
    store: Store, runs_: Runs, deployer: Deployer, pruned: release.Candidate, use: str
) -> None:
    boto3.client("s3").delete_object(Bucket=store.bucket, Key=pin_key("prod", "1.0"))
    deployer.publish_again(pruned)
    assert USES[use](store, runs_, "1.0") == RELEASE_CORRUPT.name
    assert EVIL not in runs_.seen


@pytest.mark.attack("version")
def test_a_pruned_version_is_not_published_again_by_the_command_either(store: Store, pruned: release.Candidate) -> None:
    with pytest.raises(TypedError, match="retired"):
        release.published(store, "1.0", pruned.bundle)
    with pytest.raises(TypedError):
        release.commit(store, pruned)


@pytest.mark.attack("version")
def test_the_first_run_pins_what_nobody_promoted(store: Store, runs_: Runs, deployer: Deployer, publish: Publish) -> None:
    publish("3.0")
    assert runs_.start("3.0") is None and runs_.seen == [GOOD]
    for name in (release.BUNDLE, release.MANIFEST, release.DESCRIPTION):
        boto3.client("s3").delete_object(Bucket=store.bucket, Key=release_key("3.0", name))
    deployer.publish_again(publish("3.0", EVIL, commit=False))
    assert runs_.start("3.0") == RELEASE_CORRUPT.name and EVIL not in runs_.seen


@pytest.mark.attack("version")
def test_a_raw_move_of_the_pointer_runs_nothing_that_is_not_pinned_so(
    store: Store, runs_: Runs, deployer: Deployer, pruned: release.Candidate
) -> None:
    lose_description(store, "1.0")
    deployer.publish_again(pruned)
    deployer.point("1.0", digest=sha256_of(pruned.bundle))
    assert runs_.start("1.0", project="shop") == RELEASE_CORRUPT.name
    assert refused(RELEASE_CORRUPT, lambda: promotion.promote(store, "prod", "1.0", by=BOB, reason=None))


PINS: dict[str, bytes] = {
    "another digest": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "null": b"null",
    "empty": b"",
    "numbers": json.dumps(dict.fromkeys(("version", "digest", "manifest_digest", "project", "pinned_at", "pinned_by"), 1)).encode(),
    "deep": b"[" * 10_000,
    "large": b" " * 5_000_000,
    "no UTF-8": b'"\xff"',
}


@pytest.mark.attack("pin")
@pytest.mark.parametrize("poison", PINS.values(), ids=PINS)
def test_a_poisoned_pin_is_a_refusal_and_no_more(store: Store, runs_: Runs, deployer: Deployer, publish: Publish, poison: bytes) -> None:
    publish("1.2", "select 12")
    made = publish("2.0")
    other = pins.Pin("2.0", "0" * 64, "0" * 64, "shop", "2026-11-22T00:00:00.000Z", BOB)
    assert deployer.new(pin_key("prod", "2.0"), poison or json.dumps(vars(other)).encode())
    assert {use: USES[use](store, runs_, made.version) for use in IN_ORDER} == dict.fromkeys(IN_ORDER, RELEASE_CORRUPT.name)
    assert GOOD not in runs_.seen


@pytest.mark.attack("pin")
def test_a_pin_is_not_written_again(store: Store, deployer: Deployer, publish: Publish) -> None:
    made = publish("2.0")
    promotion.promote(store, "prod", "2.0", by=ALICE, reason=None)
    assert not deployer.new(pin_key("prod", "2.0"), b"{}")
    pin = pins.read(store, "prod", "2.0")
    assert pin is not None and (pin.digest, pin.pinned_by) == (sha256_of(made.bundle), ALICE)


@pytest.mark.attack("pin")
def test_of_two_who_pin_at_once_the_first_is_kept(store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("2.0")
    meta = release.find(store, "2.0")
    other = pins.Pin("2.0", "0" * 64, meta.manifest_digest, "shop", "2026-11-22T00:00:00.000Z", BOB)
    upload = Store.upload_new

    def raced(self: Store, body: bytes, key: str) -> None:
        monkeypatch.setattr(Store, "upload_new", upload)
        upload(self, json.dumps(vars(other)).encode(), key)
        upload(self, body, key)

    monkeypatch.setattr(Store, "upload_new", raced)
    assert "since 2026-11-22" in refused(RELEASE_CORRUPT, lambda: pins.hold(store, "prod", meta, by=ALICE))


ITEMS: dict[str, dict[str, Any]] = {
    "of another version": {"version": "1.0"},
    "no digest": {"digest": None},
    "no sha256": {"digest": "x" * 64},
    "a digest in upper case": {"digest": "A" * 64},
    "a digest of another type": {"digest": 7},
    "no project": {"project": None},
    "a project of another type": {"project": ["shop"]},
    "another project": {"project": "stock"},
    "another manifest": {"manifest_digest": "0" * 64},
    "another bundle": {"digest": "0" * 64},
    "another commit": {"git_commit": "f" * 40},
    "on its way out": {"retiring_at": "2026-11-22T00:00:00.000Z"},
}


@pytest.mark.attack("item")
@pytest.mark.parametrize("changes", ITEMS.values(), ids=ITEMS)
def test_a_release_whose_item_was_replaced_is_refused(
    store: Store, runs_: Runs, deployer: Deployer, publish: Publish, changes: dict[str, Any]
) -> None:
    publish("1.2", "select 12")
    publish("2.0")
    deployer.item("2.0", **{**vars(release.find(store, "2.0")), **changes})
    for use in IN_ORDER:
        assert USES[use](store, runs_, "2.0") in (RELEASE_CORRUPT.name, RELEASE_NOT_FOUND.name), use
    assert GOOD not in runs_.seen


@pytest.mark.control("item")
def test_a_release_as_it_was_published_is_taken(store: Store, runs_: Runs, publish: Publish) -> None:
    publish("1.2", "select 12")
    publish("2.0")
    assert {use: USES[use](store, runs_, "2.0") for use in IN_ORDER} == dict.fromkeys(IN_ORDER)


# --- releases of pull requests ------------------------------------------------------------------------------------------


LOOKALIKES = (
    "ci-",
    "CI-",
    "ci-0",
    "Ci-0123456789abcdef",
    "cI-" + "0" * 32,
    "CI-" + "0" * 32,
    "ci-" + "A" * 32,
    "ci-" + "0" * 31,
    "ci-" + "0" * 33,
    "ci-" + "0" * 32 + "\n",
    " ci-" + "0" * 32,
    "ci-" + "0" * 32 + " ",
    "\u0441i-" + "0" * 32,
    "c\u0456-" + "0" * 32,
    "ci\u2010" + "0" * 32,
    "\uff43\uff49-" + "0" * 32,
    "c\u0131-" + "0" * 32,
    "ci-" + "\u0660" * 32,
    "\u200bci-" + "0" * 32,
    "./ci-" + "0" * 32,
    "1\x00",
)


@pytest.mark.attack("ci release")
@pytest.mark.parametrize("version", LOOKALIKES, ids=ascii)
def test_what_looks_like_a_pull_requests_release_and_is_none_is_taken_nowhere(store: Store, runs_: Runs, version: str) -> None:
    assert refused(INVALID_REQUEST, lambda: release.check_version(version))
    assert refused(INVALID_REQUEST, lambda: promotion.promote(store, "prod", version, by=ALICE, reason=None))
    runs_.run.config["slim_ci"] = SLIM_CI
    assert runs_.start(version, position=0) == runs_.start(version) == INVALID_REQUEST.name
    here = config.parse(json.dumps(runs_.run.config))
    for field in ("release", "defer_to"):
        refused(INVALID_REQUEST, lambda field=field: runs.start_run(None, here, {"job": "hourly", field: version}))  # type: ignore[arg-type, misc]


@bounded(300)
@given(st.text(max_size=70) | st.from_regex(re.compile(r"[cC][iI]-[0-9a-fA-F]{0,40}"), fullmatch=True))
def test_a_version_that_is_taken_is_a_key_and_a_pull_requests_one_is_a_digest(version: str) -> None:
    try:
        release.check_version(version)
    except TypedError as exc:
        assert exc.kind is INVALID_REQUEST
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", version, re.ASCII)
    assert not version.casefold().startswith("ci-") or re.fullmatch(r"ci-[0-9a-f]{32}\Z", version, re.ASCII)


@pytest.mark.attack("ci release")
@pytest.mark.parametrize("position", [0, 1], ids=["health check", "step"])
@pytest.mark.parametrize("field", ["release", "defer_to"])
def test_a_pull_requests_release_runs_only_where_slim_ci_is_set(runs_: Runs, publish: Publish, field: str, position: int) -> None:
    publish("1.2", "select 12")
    version = publish(release.CI, EVIL).version
    named: dict[str, Any] = {"version": version} if field == "release" else {"version": "1.2", "defer_to": version}
    assert runs_.start(**named, position=position) == INVALID_REQUEST.name and runs_.seen == []
    here = config.parse(json.dumps(runs_.run.config))
    message = refused(
        INVALID_REQUEST,
        lambda: runs.start_run(None, here, {"job": "hourly", field: version}),  # type: ignore[arg-type]
    )
    assert message.startswith(f"{field}: ") and "slim_ci" in message


@pytest.mark.control("ci release")
@pytest.mark.parametrize("slim_ci", [SLIM_CI, {"state_target": None, "schema_suffixes": "pr_.*"}], ids=["target", "suffixes"])
@pytest.mark.parametrize("field", ["release", "defer_to"])
def test_it_runs_where_slim_ci_is_set(runs_: Runs, publish: Publish, field: str, slim_ci: dict[str, Any]) -> None:
    runs_.run.config["slim_ci"] = slim_ci
    publish("1.2", "select 12")
    version = publish(release.CI, EVIL).version
    named: dict[str, Any] = {"version": version} if field == "release" else {"version": "1.2", "defer_to": version}
    assert runs_.start(**named) is None and runs_.seen == [EVIL]


@pytest.mark.attack("ci release")
@pytest.mark.parametrize("use", ["health check", "step", "defer_to", "promote"])
def test_a_pull_requests_release_with_other_content_than_its_name_is_refused(
    store: Store, runs_: Runs, deployer: Deployer, publish: Publish, use: str
) -> None:
    runs_.run.config["slim_ci"] = SLIM_CI
    publish("1.2", "select 12")
    named = publish(release.CI, GOOD, commit=False)
    evil = replace(publish(release.CI, EVIL, commit=False), version=named.version)
    refused(RELEASE_CORRUPT, lambda: release.commit(store, evil))
    deployer.publish_again(evil)
    assert USES[use](store, runs_, named.version) in (RELEASE_CORRUPT.name, INVALID_REQUEST.name)
    assert EVIL not in runs_.seen


@pytest.mark.control("ci release")
def test_without_the_check_of_its_name_it_would_run(
    runs_: Runs, deployer: Deployer, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "_check_name", lambda *_: None)
    runs_.run.config["slim_ci"] = SLIM_CI
    named = publish(release.CI, GOOD, commit=False)
    deployer.publish_again(replace(publish(release.CI, EVIL, commit=False), version=named.version))
    assert runs_.start(named.version) is None and runs_.seen == [EVIL]


@pytest.mark.attack("ci release")
@pytest.mark.parametrize("forged", [False, True], ids=["as it is", "after a forged promotion"])
def test_the_pointer_moves_to_no_pull_requests_release(store: Store, deployer: Deployer, publish: Publish, forged: bool) -> None:
    publish("1.0")
    promotion.promote(store, "prod", "1.0", by=ALICE, reason=None)
    version = publish(release.CI, EVIL).version
    if forged:
        moved = {**vars(promotion.history(store, "prod")[0]), "version": version, "promoted_at": "2026-01-01T00:00:00.000Z"}
        keys = {"pk": pointer_pk("prod"), "sk": "PROMOTION#2026-01-01T00:00:00.000Z"}
        store.put({**keys, **{name: value for name, value in moved.items() if name not in ("environment", "changed")}})
    for move in (promotion.promote, promotion.rollback):
        refused(INVALID_REQUEST, lambda move=move: move(store, "prod", version, by=BOB, reason=None, other_project=True))  # type: ignore[misc]


# --- another project ----------------------------------------------------------------------------------------------------


@pytest.fixture
def two_projects(store: Store, publish: Publish) -> None:
    publish("1.2", "select 12")
    publish("stock-1", EVIL, "stock")
    promotion.promote(store, "prod", "1.2", by=ALICE, reason=None)


@pytest.mark.attack("project")
@pytest.mark.parametrize("use", ["promote", "step", "health check", "defer_to"])
def test_a_release_of_another_project_is_refused(store: Store, runs_: Runs, two_projects: None, use: str) -> None:
    if use == "promote":
        assert USES[use](store, runs_, "stock-1") == INVALID_REQUEST.name
        return
    named: dict[str, Any] = {"version": "1.2", "defer_to": "stock-1"} if use == "defer_to" else {"version": "stock-1"}
    assert runs_.start(**named, position=int(use != "health check"), project="shop") == INVALID_REQUEST.name
    assert EVIL not in runs_.seen


@pytest.mark.attack("project")
def test_going_back_to_the_earlier_project_asks_again(store: Store, two_projects: None) -> None:
    assert "--other-project" in refused(INVALID_REQUEST, lambda: promotion.promote(store, "prod", "stock-1", by=BOB, reason=None))
    promotion.promote(store, "prod", "stock-1", by=BOB, reason=None, other_project=True)
    for version in (None, "1.2"):
        refused(INVALID_REQUEST, lambda version=version: promotion.rollback(store, "prod", version, by=BOB, reason=None))  # type: ignore[misc]
    assert promotion.rollback(store, "prod", None, by=BOB, reason=None, other_project=True).project == "shop"


@pytest.mark.control("project")
def test_after_a_deliberate_promotion_the_new_project_runs_and_the_old_one_does_not(store: Store, runs_: Runs, two_projects: None) -> None:
    promotion.promote(store, "prod", "stock-1", by=BOB, reason=None, other_project=True)
    standing = promotion.current(store, "prod")
    assert standing is not None and standing.project == "stock"
    assert runs_.start("stock-1", project=standing.project) is None and runs_.seen == [EVIL]
    assert runs_.start("1.2", project=standing.project) == INVALID_REQUEST.name


# --- the record of promotions -------------------------------------------------------------------------------------------


FIRST = "2026-11-21T00:00:00.000Z"
SECOND = "2026-11-22T00:00:00.000Z"


@pytest.fixture
def promoted(store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    for version, moment in (("1.0", FIRST), ("1.1", SECOND)):
        publish(version)
        monkeypatch.setattr(promotion, "now", lambda moment=moment: moment)
        promotion.promote(store, "prod", version, by=ALICE, reason="ticket 7")
    yield store


def _rewritten(sk: str, **changes: Any) -> Callable[[Store], None]:
    def rewrite(store: Store) -> None:
        item = store.get(pointer_pk("prod"), f"PROMOTION#{FIRST}") or {}
        store.put({name: value for name, value in {**item, "sk": sk, **changes}.items() if value is not None})

    return rewrite


REWRITES: dict[str, Callable[[Store], None]] = {
    "by another one": _rewritten(f"PROMOTION#{FIRST}", promoted_by=BOB),
    "of another version": _rewritten(f"PROMOTION#{FIRST}", version="1.1"),
    "for another reason": _rewritten(f"PROMOTION#{FIRST}", reason="ticket 8"),
    "without a reason": _rewritten(f"PROMOTION#{FIRST}", reason=None),
    "with another digest": _rewritten(f"PROMOTION#{FIRST}", digest="0" * 64),
    "of another project": _rewritten(f"PROMOTION#{FIRST}", project="stock"),
    "at another time": _rewritten(f"PROMOTION#{FIRST}", promoted_at="2026-11-20T00:00:00.000Z"),
    "emptied": lambda store: store.put({"pk": pointer_pk("prod"), "sk": f"PROMOTION#{FIRST}"}),
    "other types": _rewritten(f"PROMOTION#{FIRST}", version=7),
    "one more": _rewritten("PROMOTION#2026-11-20T00:00:00.000Z", promoted_at="2026-11-20T00:00:00.000Z"),
    "under a name of its own": _rewritten("PROMOTION#x"),
    "the pointer moved": _rewritten("RELEASE#CURRENT", promoted_at="2026-11-23T00:00:00.000Z"),
    "the pointer set back": _rewritten("RELEASE#CURRENT"),
    "the pointer emptied": lambda store: store.put({"pk": pointer_pk("prod"), "sk": "RELEASE#CURRENT"}),
}


@pytest.mark.attack("promotions")
@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
def test_a_rewritten_promotion_is_named(promoted: Store, rewrite: Callable[[Store], None]) -> None:
    rewrite(promoted)
    assert [check for check in promotion_audit.check_promotions(promoted, "prod") if check.problem]


@pytest.mark.attack("promotions")
def test_a_row_cannot_follow_the_rewritten_promotion(promoted: Store, deployer: Deployer) -> None:
    REWRITES["by another one"](promoted)
    move = promotion.history(promoted, "prod")[0]
    assert move.promoted_by == BOB and not deployer.new(promotion.row_key(move), json.dumps(promotion.row_of(move)).encode())
    assert [check.problem for check in promotion_audit.check_promotions(promoted, "prod") if check.problem] == [
        "differs from the table's record in promoted_by"
    ]


@pytest.mark.control("promotions")
def test_promotions_as_they_were_made_hold(promoted: Store) -> None:
    checks = promotion_audit.check_promotions(promoted, "prod")
    assert len(checks) == 5 and [check for check in checks if check.problem] == []


@pytest.mark.control("promotions")
def test_the_table_alone_believes_a_rewritten_promotion(promoted: Store) -> None:
    REWRITES["by another one"](promoted)
    assert [move.promoted_by for move in promotion.history(promoted, "prod")] == [BOB, ALICE]


@pytest.mark.attack("promotions")
@pytest.mark.parametrize("rewrite", ["emptied", "other types", "the pointer emptied", "under a name of its own"])
def test_a_damaged_record_is_a_typed_error(promoted: Store, rewrite: str) -> None:
    REWRITES[rewrite](promoted)
    kinds: set[ErrorKind] = {RELEASE_CORRUPT, INVALID_REQUEST}
    for call in (
        lambda: promotion.history(promoted, "prod"),
        lambda: promotion.current(promoted, "prod"),
        lambda: promotion.rollback(promoted, "prod", None, by=BOB, reason=None),
    ):
        try:
            call()
        except TypedError as exc:
            assert exc.kind in kinds


@pytest.mark.attack("promotions")
def test_prune_keeps_what_an_environment_runs_whatever_its_item_says(promoted: Store, deployer: Deployer) -> None:
    deployer.item("1.1", **vars(release.find(promoted, "1.1")), deleting_at="2026-11-22T00:00:00.000Z")
    prune.prune(promoted, prune.Rules(timedelta(0), 0, timedelta(0)), by="admin", moment=datetime.now(UTC) + timedelta(days=1000))
    assert promoted.has_objects(release_key("1.1", release.BUNDLE))


@pytest.mark.attack("promotions")
@pytest.mark.parametrize("rewrite", ["emptied", "other types", "the pointer emptied"])
def test_prune_removes_nothing_by_a_record_that_was_replaced(promoted: Store, publish: Publish, rewrite: str) -> None:
    publish("0.9", "select 9")
    REWRITES[rewrite](promoted)
    _prunes_nothing(promoted, "0.9")


@pytest.mark.attack("item")
@pytest.mark.parametrize("changes", [{"version": "0.9"}, {"published_at": 5}, {"published_at": "long ago"}], ids=str)
def test_prune_removes_nothing_by_an_item_that_was_replaced(
    promoted: Store, deployer: Deployer, publish: Publish, changes: dict[str, Any]
) -> None:
    publish("0.9", "select 9")
    publish("0.8", "select 8")
    deployer.item("0.8", **{**vars(release.find(promoted, "0.8")), **changes})
    _prunes_nothing(promoted, "0.9")


def _prunes_nothing(store: Store, version: str) -> None:
    rules, later = prune.Rules(timedelta(0), 0, timedelta(0)), datetime.now(UTC) + timedelta(days=1000)
    refused(RELEASE_CORRUPT, lambda: prune.prune(store, rules, by="admin", moment=later))
    assert store.has_objects(release_key(version, release.BUNDLE))


def test_an_environment_that_has_only_one_of_both_settings_takes_pull_requests() -> None:
    raw = config_of("prod")
    found = []
    for slim_ci in ({"state_target": None, "schema_suffixes": None}, SLIM_CI, {"state_target": None, "schema_suffixes": "x"}):
        found.append(config.parse(json.dumps({**raw, "slim_ci": slim_ci})).slim_ci)
    assert found == [False, True, True]


@pytest.mark.attack("promotions")
def test_a_row_that_is_none_hides_no_promotion_of_a_run(promoted: Store, deployer: Deployer) -> None:
    for number, body in enumerate((b"{", b"[]", b"1", b'{"promoted_at": 5}', b"\xff", b"")):
        assert deployer.new(f"audit/promotions/env=prod/date=2026-11-22/junk-{number}.jsonl", body)
    found = account._promotion(promoted, "prod", {"started_at": "2026-11-23T00:00:00.000Z", "release": "1.1"})
    assert found is not None and found["promoted_by"] == ALICE
    assert [check.problem for check in account._promoted(found, [{"release_digest": found["digest"]}], "run")] == []
    assert [check.key for check in account._promoted(found, [{"release_digest": "0" * 64}], "run")] == ["run"]
    assert len([check for check in promotion_audit.check_promotions(promoted, "prod") if check.problem]) == 7
