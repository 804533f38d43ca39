#!/usr/bin/env python3
"""Builds the runner's image with docker, podman or buildah, whichever works here, tries it out, and lists what is in it.

    python3 runner/build_image.py build [--warehouses postgres] [--base python@sha256:...] [--platform linux/arm64]
    python3 runner/build_image.py check
    python3 runner/build_image.py sbom --output sbom.json

It needs nothing but Python 3.11 and one of the three, so that a workflow can call it on a bare checkout.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

RUNNER = Path(__file__).resolve().parent
SAMPLE_PROJECT = RUNNER.parent / "examples" / "local" / "shop"
# How to find out that an engine does not only lie on PATH: docker without its daemon can do nothing.
ENGINES = {"docker": ("docker", "info"), "podman": ("podman", "info"), "buildah": ("buildah", "info")}
SBOM_LOCK = RUNNER / "requirements" / "sbom.txt"
SMOKE_TEST = ("python3", "-m", "dbt_runner.smoke_test")
# As on Fargate: a root file system that cannot be written to, and a volume of its own for /tmp.
_CONFINED = ("--read-only", "--tmpfs", "/tmp:mode=1777", "--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")

# The same by the kernel's own means, in new namespaces for mounts and processes: root, user, then the command.
_ENTER = """
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,ro,bind "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev"
for device in null zero urandom; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
cd "$root"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" "$@"
"""


# What is installed, by its own metadata, as a tar archive: of the Python packages and of Debian's.
_INSTALLED = """
import pathlib, sys, sysconfig, tarfile
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar:
    for path in sorted(pathlib.Path(sysconfig.get_path("purelib")).glob("*.dist-info/METADATA")):
        tar.add(path, f"python/{path.parent.name}/METADATA")
    for path in map(pathlib.Path, ("/var/lib/dpkg/status", "/etc/os-release")):
        if path.exists():
            tar.add(path.resolve(), path.name)
"""

# What was added to the tool's own document has to keep to the standard, too.
_VALIDATE = """
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path(sys.argv[1]).read_text())
sys.exit(f"not CycloneDX 1.6: {problem}" if problem else 0)
"""


class ImageError(Exception):
    """What went wrong and what to do about it."""


@dataclass(frozen=True)
class Build:
    """What an image is built from.

    Attributes:
        base: base image, best by digest; None for the Dockerfile's own.
        warehouses: the adapters, separated by commas; None for all.
        platform: linux/amd64 or linux/arm64; None for this machine's.
        pip_conf: a pip configuration, for a package index of one's own; it does not become part of the image.
        context: the folder of the Dockerfile.
    """

    tag: str
    base: str | None = None
    warehouses: str | None = None
    platform: str | None = None
    pip_conf: Path | None = None
    context: Path = RUNNER


def engine(asked: str | None = None) -> str:
    """The first of docker, podman and buildah that works here, or the one that is asked for.

    Raises:
        ImageError: none works, and why.
    """
    reasons = []
    for name in [asked] if asked else ENGINES:
        if name not in ENGINES:
            raise ImageError(f"{name} is none of {', '.join(ENGINES)}")
        if shutil.which(name) is None:
            reasons.append(f"{name} is not installed")
            continue
        done = subprocess.run(ENGINES[name], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return name
        said = (done.stderr or done.stdout).strip().splitlines()
        reasons.append(f"{name} does not work: {said[-1] if said else f'exit code {done.returncode}'}")
    raise ImageError("an image needs docker, podman or buildah: " + "; ".join(reasons))


def build_command(name: str, build: Build) -> list[str]:
    """The engine's command that builds the image."""
    arguments = dict(labels())
    if build.base:
        arguments["BASE_IMAGE"] = build.base
    if build.warehouses:
        arguments["WAREHOUSES"] = build.warehouses
    # An image for Lambda must not come with attestations, which make it an index: https://github.com/docker/buildx/issues/1533
    command = {"docker": ["docker", "buildx", "build", "--load", "--provenance=false"]}.get(name, [name, "build"])
    command += ["--tag", build.tag]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    if build.platform:
        command += ["--platform", build.platform]
    if build.pip_conf:
        command += ["--secret", f"id=pip,src={build.pip_conf}"]
    return [*command, str(build.context)]


def labels() -> dict[str, str]:
    """The build arguments that become labels: what git knows, so that the same commit gives the same labels."""
    found = {"VERSION": version()}
    revision = _git("rev-parse", "HEAD")
    if revision:
        found["REVISION"] = revision + ("-dirty" if _git("status", "--porcelain") else "")
        seconds = int(_git("log", "-1", "--format=%ct") or 0)
        found["CREATED"] = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if source := _git("config", "--get", "remote.origin.url"):
        # Never a token that somebody cloned with.
        found["SOURCE"] = re.sub(r"//[^/@]*@", "//", source)
    return found


def version() -> str:
    """The package's version."""
    found = re.search(r'^__version__ = "([^"]+)"', (RUNNER / "src" / "dbt_runner" / "__init__.py").read_text(), re.MULTILINE)
    if not found:
        raise ImageError("dbt_runner/__init__.py has no __version__")
    return found[1]


def _git(*arguments: str) -> str | None:
    if shutil.which("git") is None:
        return None
    done = subprocess.run(["git", "-C", str(RUNNER), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def run_confined(
    name: str, tag: str, command: Sequence[str], stdin: bytes, stdout: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Runs a command in a container of the image: its own user, no privileges, nothing to write to but /tmp.

    With docker and podman it has no network either.

    Args:
        stdout: subprocess.PIPE to have the output; None to show it.

    Raises:
        ImageError: this engine cannot confine it here.
    """
    if name != "buildah":
        whole = [name, "run", "--rm", "-i", *_CONFINED, "--entrypoint", command[0], tag, *command[1:]]
        return subprocess.run(whole, input=stdin, stdout=stdout, check=False)
    # buildah runs commands to build images: it knows no read-only root. As root, the kernel does.
    if os.geteuid() != 0:
        raise ImageError("buildah alone can try an image out as root only: use sudo, docker or podman")
    container = _output("buildah", "from", tag)
    try:
        config = json.loads(_output("buildah", "inspect", container))["OCIv1"]["config"]
        script = ["sh", "-euc", _ENTER, "sh", _output("buildah", "mount", container), config["User"]]
        whole = ["unshare", "--mount", "--pid", "--ipc", "--fork", "env", "-i", *config["Env"], *script, *command]
        return subprocess.run(whole, input=stdin, stdout=stdout, check=False)
    finally:
        subprocess.run(["buildah", "rm", container], stdout=subprocess.DEVNULL, check=False)


def _output(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise ImageError(f"{shlex.join(command)} failed: is the image built?")
    return done.stdout.strip()


def archive(project: Path) -> bytes:
    """A dbt project as a tar archive, without what dbt has written into it."""

    def ours(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if Path(member.name).parts[:1] in (("target",), ("logs",), ("dbt_packages",)) else member

    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for path in sorted(project.iterdir()):
            tar.add(path, path.name, filter=ours)
    return output.getvalue()


def write_sbom(name: str, tag: str, output: Path) -> None:
    """Writes a bill of materials (CycloneDX, JSON) of what is installed in the image; the same image gives the same file.

    Raises:
        ImageError: a step of it failed.
    """
    installed = run_confined(name, tag, ["python3", "-c", _INSTALLED], b"", stdout=subprocess.PIPE)
    if installed.returncode != 0:
        raise ImageError(f"{tag} does not tell what is installed in it: is the image built?")
    with tempfile.TemporaryDirectory() as scratch:
        tool, packages, found = (Path(scratch) / folder for folder in ("tool", "packages", "found"))
        with tarfile.open(fileobj=io.BytesIO(installed.stdout)) as tar:
            tar.extractall(found, filter="data")
        venv.create(tool, with_pip=True)
        _step(tool / "bin" / "python3", "-m", "pip", "install", "-q", "--require-hashes", "--no-deps", "-r", SBOM_LOCK)
        # The tool reads environments: this one has the metadata of the image's packages and nothing else.
        venv.create(packages, with_pip=False)
        (site,) = packages.glob("lib/python*/site-packages")
        shutil.copytree(found / "python", site, dirs_exist_ok=True)
        document = Path(scratch) / "sbom.json"
        options = ("--output-reproducible", "--sv", "1.6", "--of", "JSON", "-o", document)
        _step(tool / "bin" / "cyclonedx-py", "environment", packages, *options)
        sbom = json.loads(document.read_text())
        debian = [found / file for file in ("status", "os-release")]
        sbom["components"] += debian_components(*(path.read_text() for path in debian)) if all(path.exists() for path in debian) else []
        sbom["metadata"]["component"] = {"type": "container", "name": "dbt-runner", "version": version(), "bom-ref": "image"}
        document.write_text(json.dumps(sbom, indent=2, sort_keys=True) + "\n")
        _step(tool / "bin" / "python3", "-c", _VALIDATE, document)
        shutil.copyfile(document, output)


def debian_components(status: str, release: str) -> list[dict[str, str]]:
    """Components of the installed packages of Debian or a relative of it.

    Args:
        status: /var/lib/dpkg/status.
        release: /etc/os-release.
    """
    distribution = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    vendor, codename = (distribution.get(key, "").strip('"') for key in ("ID", "VERSION_CODENAME"))
    components = []
    for paragraph in status.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Status|Version|Architecture): (.*)$", paragraph, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            # https://github.com/package-url/purl-spec/blob/main/types/deb-definition.json
            package, number = quote(fields["Package"]), quote(fields["Version"], safe="")
            purl = f"pkg:deb/{vendor}/{package}@{number}?arch={fields['Architecture']}&distro={codename}"
            components.append({"type": "library", "name": fields["Package"], "version": fields["Version"], "purl": purl, "bom-ref": purl})
    return components


def _step(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ImageError(f"{shlex.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Builds the runner's image and tries it out.")
    parser.add_argument("action", choices=["build", "check", "sbom"])
    parser.add_argument("--tag", default=f"dbt-runner:{version()}", help="name of the image (default: %(default)s)")
    parser.add_argument("--engine", help="docker, podman or buildah (default: the first that works)")
    parser.add_argument("--base", help="base image, by digest for a release")
    parser.add_argument("--warehouses", help="adapters, separated by commas (default: all)")
    parser.add_argument("--platform", help="linux/amd64 or linux/arm64 (default: this machine's)")
    parser.add_argument("--pip-conf", type=Path, help="pip configuration for a package index of your own")
    parser.add_argument("--output", type=Path, default=Path("sbom.json"), help="of the bill of materials (default: %(default)s)")
    given = parser.parse_args(arguments)
    try:
        name = engine(given.engine)
        if given.action == "check":
            return run_confined(name, given.tag, SMOKE_TEST, archive(SAMPLE_PROJECT)).returncode
        if given.action == "sbom":
            write_sbom(name, given.tag, given.output)
            return 0
        command = build_command(name, Build(given.tag, given.base, given.warehouses, given.platform, given.pip_conf))
        print(f"image: {shlex.join(command)}", file=sys.stderr)
        return subprocess.run(command, check=False).returncode
    except ImageError as exc:
        print(f"image: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
