"""`make image` and `make image-check`: which engine they take, what they hand to it, and, slowly, an image that is built and tried out."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbt_runner import __version__, smoke_test
from dbt_runner.local import image_process

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "runner" / "build_image.py"


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """A folder that is the only one on PATH, for engines that write down what they are asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def install(folder: Path, name: str, *, works: bool = True) -> Path:
    """Puts an engine there; returns the file with its command lines."""
    asked = folder.parent / f"{name}.log"
    info = "exit 0" if works else "echo no daemon here >&2; exit 1"
    (folder / name).write_text(f'#!/bin/sh\n[ "$1" = info ] && {{ {info}; }}\nprintf "%s\\n" "$*" >> {shlex.quote(str(asked))}\n')
    (folder / name).chmod(0o755)
    return asked


def run(folder: Path, *arguments: str, script: Path = SCRIPT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env={"PATH": str(folder)}, capture_output=True, text=True, check=False)


def test_an_engine_that_lies_there_and_does_not_work_is_passed_over(engines: Path) -> None:
    install(engines, "docker", works=False)
    asked = install(engines, "podman")
    assert run(engines, "build").returncode == 0
    assert asked.read_text().startswith("build --tag dbt-runner:")
    assert run(engines, "check").returncode == 0
    assert "run --rm -i --read-only --tmpfs /tmp:mode=1777 --network none --cap-drop ALL" in asked.read_text()


def test_without_an_engine_the_error_says_what_is_wrong_with_each(engines: Path) -> None:
    install(engines, "docker", works=False)
    done = run(engines, "build")
    assert (done.returncode, done.stdout) == (1, "")
    assert "docker does not work: no daemon here; podman is not installed; buildah is not installed" in done.stderr
    assert "kaniko is none of docker, podman, buildah" in run(engines, "build", "--engine", "kaniko").stderr


def test_what_is_asked_for_reaches_the_engine(engines: Path, tmp_path: Path) -> None:
    asked = install(engines, "docker")
    options = [
        "--tag",
        "x:1",
        "--warehouses",
        "postgres",
        "--base",
        "python@sha256:0f",
        "--platform",
        "linux/arm64",
        "--pip-conf",
        "/p.conf",
    ]
    assert run(engines, "build", *options).returncode == 0
    words = asked.read_text().split()
    assert words[:2] == ["buildx", "build"] and "--provenance=false" in words
    assert {"WAREHOUSES=postgres", "BASE_IMAGE=python@sha256:0f", "linux/arm64", "id=pip,src=/p.conf"} <= set(words)
    assert words[words.index("--tag") + 1] == "x:1"
    assert words[-1] == str(ROOT / "runner")


def test_the_labels_are_the_commits_and_hold_no_token(engines: Path, tmp_path: Path) -> None:
    package = tmp_path / "checkout" / "src" / "dbt_runner"
    package.mkdir(parents=True)
    shutil.copy(SCRIPT, tmp_path / "checkout")
    (package / "__init__.py").write_text('__version__ = "9.8.7"\n')
    git = shutil.which("git")
    assert git, "git is needed"
    for command in (
        "init -q",
        "remote add origin https://user:hidden@git.example.com/acme/dbt.git",
        "add .",
        "-c user.name=a -c user.email=a@example.com commit -qm one",
    ):
        when = {"GIT_AUTHOR_DATE": "2026-11-25T09:00:00Z", "GIT_COMMITTER_DATE": "2026-11-25T09:00:00Z"}
        subprocess.run([git, "-C", str(tmp_path / "checkout"), *command.split()], env={**os.environ, **when}, check=True)
    asked = install(engines, "podman")
    (engines / "git").symlink_to(git)
    script = tmp_path / "checkout" / SCRIPT.name
    assert run(engines, "build", script=script).returncode == 0
    words = asked.read_text().split()
    assert {"VERSION=9.8.7", "CREATED=2026-11-25T09:00:00Z", "SOURCE=https://git.example.com/acme/dbt.git"} <= set(words)
    (package / "new.py").touch()
    assert run(engines, "build", script=script).returncode == 0
    revisions = re.findall(r"REVISION=(\S+)", asked.read_text())
    assert re.fullmatch(r"[0-9a-f]{40}", revisions[0]) and revisions[1] == f"{revisions[0]}-dirty"


def test_the_smoke_test_fails_where_the_image_is_not_what_it_promises() -> None:
    """This process is in no container of the image: each check that can be made of it has to find that."""
    with pytest.raises(smoke_test.CheckFailed, match="not read-only"):
        smoke_test.file_system()
    with pytest.raises(smoke_test.CheckFailed, match="could be changed"):
        smoke_test.nothing_to_change()
    with pytest.raises(smoke_test.CheckFailed, match="the working directory is"):
        smoke_test.isolated()
    with pytest.raises(smoke_test.CheckFailed, match="are not compiled as they should"):
        smoke_test.compiled()
    with pytest.raises(smoke_test.CheckFailed, match="the image holds"):
        smoke_test.no_tools()


def test_debians_packages_are_named_as_scanners_know_them() -> None:
    spec = importlib.util.spec_from_file_location("build_image", SCRIPT)
    assert spec and spec.loader
    build_image = importlib.util.module_from_spec(spec)
    sys.modules["build_image"] = build_image
    spec.loader.exec_module(build_image)
    status = (
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.41-12+deb13u1\nDescription: x\n Package: not one\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n"
        "Package: tzdata\nStatus: install ok installed\nArchitecture: all\nVersion: 1:2026b-1~x\n"
    )
    found = build_image.debian_components(status, 'ID=debian\nVERSION_CODENAME="trixie"\n\nNAME="Debian"\n')
    assert [component["purl"] for component in found] == [
        "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64&distro=trixie",
        "pkg:deb/debian/tzdata@1%3A2026b-1~x?arch=all&distro=trixie",
    ]


# The real thing

# Of whoever builds.
SECRETS = {whose: secrets.token_hex(20) for whose in ("AWS", "dbt", "the package index")}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with one warehouse, built by buildah from this checkout."""
    if shutil.which("buildah") is None:
        pytest.skip("THE IMAGE IS NOT BUILT: buildah is not installed")
    from image import stand_in

    dockerfile = (ROOT / "runner" / "Dockerfile").read_text()
    default = re.search(r"^ARG BASE_IMAGE=(\S+)", dockerfile, re.MULTILINE)
    assert default
    version = re.search(r":(\d+\.\d+)", default[1])
    assert version
    # The one isolation that also works inside of a container, as CI is.
    os.environ.setdefault("BUILDAH_ISOLATION", "chroot")
    try:
        base = stand_in.base_image(default[1], version[1], tmp_path_factory.mktemp("base"))
    except stand_in.Unavailable as exc:
        pytest.skip(f"THE IMAGE IS NOT BUILT: {exc}")
    tag = "localhost/dbt-runner-test:latest"
    command = [sys.executable, str(SCRIPT), "build", "--engine", "buildah", "--base", base, "--warehouses", "duckdb", "--tag", tag]
    pip_conf = tmp_path_factory.mktemp("pip") / "pip.conf"
    pip_conf.write_text(f"# password of an index: {SECRETS['the package index']}\n")
    of_the_builder = {"AWS_SECRET_ACCESS_KEY": SECRETS["AWS"], "DBT_ENV_SECRET_TOKEN": SECRETS["dbt"]}
    done = subprocess.run(
        [*command, "--pip-conf", str(pip_conf)], env={**os.environ, **of_the_builder}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    yield tag
    subprocess.run(["buildah", "rmi", tag], capture_output=True, check=False)


@pytest.mark.slow
def test_an_image_is_built_and_passes_its_smoke_test(image: str) -> None:
    command = [sys.executable, str(SCRIPT), "check", "--engine", "buildah", "--tag", image]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = dict(line.removeprefix("ok").strip().split(": ", 1) for line in done.stdout.splitlines())
    assert re.fullmatch(r"duckdb [\d.]+", lines["adapters"]), "an adapter that was not asked for"
    assert lines.keys() == {
        "version", "not root", "read-only root", "nothing to change", "isolated", "no tools", "compiled", "adapters", "Lambda",
        "select 1 on DuckDB", "build of the project",
    }  # fmt: skip


@pytest.mark.slow
def test_the_image_says_what_it_is(image: str) -> None:
    inspected = subprocess.run(["buildah", "inspect", "--type", "image", image], capture_output=True, text=True, check=True).stdout
    config = json.loads(inspected)["OCIv1"]["config"]
    assert (config["User"], config["WorkingDir"]) == ("10001:10001", image_process.WORKING_DIRECTORY)
    assert tuple(config["Entrypoint"]) == image_process.TASK_ENTRY_POINT
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", labels["revision"])


@pytest.mark.slow
def test_the_image_holds_no_secret_of_its_builder(image: str, tmp_path: Path) -> None:
    """Neither in a layer, nor in what the image says of itself: its history, its variables and its labels."""
    archive = tmp_path / "image.tar"
    subprocess.run(["buildah", "push", "-q", image, f"docker-archive:{archive}:image"], capture_output=True, check=True)
    control = {text: text for text in ("org.opencontainers.image.title", "Name: dbt-runner")}
    found = {
        what: subprocess.run(["grep", "-qF", "-e", text, str(archive)], check=False).returncode == 0
        for what, text in {**SECRETS, **control}.items()
    }
    archive.unlink()
    assert found == {**dict.fromkeys(SECRETS, False), **dict.fromkeys(control, True)}


@pytest.mark.slow
def test_the_bill_of_materials_has_every_package_and_is_the_same_again(image: str, tmp_path: Path) -> None:
    written = []
    for name in ("one.json", "two.json"):
        command = [sys.executable, str(SCRIPT), "sbom", "--engine", "buildah", "--tag", image, "--output", str(tmp_path / name)]
        subprocess.run(command, check=True, timeout=500)
        written.append((tmp_path / name).read_text())
    assert written[0] == written[1]
    sbom = json.loads(written[0])
    packages = {component["purl"].split("@")[0]: component["version"] for component in sbom["components"]}
    assert packages["pkg:pypi/dbt-runner"] == __version__
    lock = dict(re.findall(r"^([a-z0-9.-]+)==([^\s;\\]+)", (ROOT / "runner" / "requirements" / "image.txt").read_text(), re.MULTILINE))
    assert {package: packages[f"pkg:pypi/{package}"] for package in ("dbt-core", "dbt-duckdb", "boto3", "duckdb")} == {
        package: lock[package] for package in ("dbt-core", "dbt-duckdb", "boto3", "duckdb")
    }
    assert "pkg:deb/debian/libc6" in packages
    assert "pkg:pypi/cyclonedx-bom" not in packages
