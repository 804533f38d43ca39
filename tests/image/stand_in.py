"""A base image for where no registry is reached: Debian by debootstrap, with a Python of this machine in the place of python:3.12-slim's.

It stands in for the official image's layout (Python below /usr/local, nothing else installed), not for its contents: what the official
image holds beyond that is not tested with it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# What Python's own modules are linked to.
_LIBRARIES = "ca-certificates,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g"
_TAG = "localhost/dbt-runner-test-base:latest"
_PULL_SECONDS = 60


class Unavailable(Exception):
    """There is no base image here; the message says why."""


def base_image(default: str, python_version: str, scratch: Path) -> str:
    """The name of a base image that buildah can build from.

    Args:
        default: the Dockerfile's own base.
        python_version: that it has, as 3.12.
        scratch: a folder for the stand-in's files.

    Raises:
        Unavailable: neither a registry nor the parts of a stand-in are at hand.
    """
    if given := os.environ.get("DBT_RUNNER_TEST_BASE_IMAGE"):
        return given
    try:
        official = f"docker.io/library/{default}"
        if subprocess.run(["buildah", "pull", "-q", official], capture_output=True, timeout=_PULL_SECONDS, check=False).returncode == 0:
            return official
    except subprocess.TimeoutExpired:
        pass
    return _stand_in(python_version, scratch)


def _stand_in(python_version: str, scratch: Path) -> str:
    release = platform.freedesktop_os_release()
    prefix = _prefix(python_version)
    if release.get("ID") != "debian" or shutil.which("debootstrap") is None or os.geteuid() != 0 or prefix is None:
        raise Unavailable(
            f"no registry is reached, and a stand-in needs root, Debian, debootstrap and a Python {python_version} on PATH or of pyenv; "
            "or name an image in DBT_RUNNER_TEST_BASE_IMAGE"
        )
    root = scratch / "root"
    # The release of this machine: its Python is linked to that one's libraries.
    _run("debootstrap", "--variant=minbase", f"--include={_LIBRARIES}", release["VERSION_CODENAME"], str(root))
    for name in ("bin", "lib"):
        shutil.copytree(prefix / name, root / "usr" / "local" / name, symlinks=True, dirs_exist_ok=True, ignore=_unneeded)
    if _CERTIFICATES.exists():
        # Whom this machine trusts when it reaches the package index.
        shutil.copyfile(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
    _run("chroot", str(root), "ldconfig")
    container = _run("buildah", "from", "scratch")
    try:
        _run("buildah", "add", "-q", container, str(root), "/")
        _run("buildah", "config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        _run("buildah", "commit", "-q", container, _TAG)
    finally:
        _run("buildah", "rm", container)
    shutil.rmtree(root)
    return _TAG


def _prefix(version: str) -> Path | None:
    places = [Path(found)] if (found := shutil.which(f"python{version}")) else []
    places += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for python in places:
        asked = subprocess.run([str(python), "-c", "import sys; print(sys.base_prefix)"], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            return Path(asked.stdout.strip())
    return None


def _unneeded(_folder: str, names: list[str]) -> set[str]:
    # The official image has no compiled files either. What others have installed into this Python is none of the base's, but for pip.
    return {name for name in names if name == "__pycache__" or name.endswith(".a")}


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()
