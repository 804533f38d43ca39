"""What the Dockerfile and its lock promise, as far as that can be told without building the image."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dbt_runner.local import image_process

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "runner"
DOCKERFILE = RUNNER / "Dockerfile"
LOCK = RUNNER / "requirements" / "image.txt"

SECRET_NAME = re.compile(r"passw|secret|token|credential|api_?key|access_?key|private_?key", re.IGNORECASE)
COMPILERS = re.compile(r"\b(build-essential|gcc|g\+\+|clang|make|cargo|rustc|apt-get|apt|apk)\b")


@dataclass(frozen=True)
class Instruction:
    """One instruction: `stage` counts the FROMs before it and is -1 for an ARG above the first; `text` has its lines joined."""

    stage: int
    keyword: str
    text: str

    def words(self) -> list[str]:
        """The instruction's words, without its --options."""
        return [word for word in shlex.split(self.text) if not word.startswith("--")]

    def assignments(self) -> dict[str, str]:
        """NAME=value pairs of ARG, ENV and LABEL; a name without a value has the value ''."""
        return {name: value for name, _, value in (word.partition("=") for word in shlex.split(self.text))}


def parse(dockerfile: str) -> list[Instruction]:
    """The instructions in order. Comment lines are dropped, also between the lines of one instruction, as builders do."""
    lines = [line for line in dockerfile.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    instructions: list[Instruction] = []
    stage = -1
    for logical in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        keyword, _, text = logical.strip().partition(" ")
        stage += keyword.upper() == "FROM"
        instructions.append(Instruction(stage, keyword.upper(), text.strip()))
    return instructions


def parse_lock(text: str) -> dict[str, set[Version]]:
    """Package name to the pinned versions: more than one where markers fork. Markers and hashes are left out."""
    pins: dict[str, set[Version]] = {}
    for match in re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE):
        pins.setdefault(canonicalize_name(match[1]), set()).add(Version(match[2]))
    return pins


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    return parse(DOCKERFILE.read_text())


@pytest.fixture(scope="module")
def final(instructions: list[Instruction]) -> list[Instruction]:
    last = max(instruction.stage for instruction in instructions)
    return [instruction for instruction in instructions if instruction.stage == last]


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((RUNNER / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def warehouses(pyproject: dict[str, Any]) -> set[str]:
    """The extras that bring a dbt adapter of their own, not by way of another extra."""
    extras = pyproject["project"]["optional-dependencies"]
    found = {
        extra
        for extra, requirements in extras.items()
        if any(re.match(r"dbt-(?!runner\b)", canonicalize_name(Requirement(requirement).name)) for requirement in requirements)
    }
    assert found, "pyproject.toml has no extra with a dbt adapter"
    return found


def arg_defaults(instructions: list[Instruction]) -> dict[str, str]:
    defaults: dict[str, str] = {}
    for instruction in instructions:
        if instruction.keyword == "ARG":
            defaults |= {name: value for name, value in instruction.assignments().items() if value}
    return defaults


def of(instructions: list[Instruction], keyword: str) -> list[Instruction]:
    return [instruction for instruction in instructions if instruction.keyword == keyword]


def only(instructions: list[Instruction], keyword: str) -> Instruction:
    (instruction,) = of(instructions, keyword)
    return instruction


def pip_commands(instructions: list[Instruction]) -> Iterator[str]:
    for run in of(instructions, "RUN"):
        for command in re.split(r"&&|\|\||;", run.text):
            if re.search(r"\b(pip3?|uv)\b.*\b(install|download|sync|wheel)\b", command):
                yield command


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([str(hadolint), "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# The base image


def test_every_stage_starts_from_the_one_pinned_base_image(instructions: list[Instruction]) -> None:
    bases = [instruction.words()[0] for instruction in of(instructions, "FROM")]
    assert len(bases) >= 2, "one stage only: what builds the packages would ship with them"
    assert set(bases) == {"${BASE_IMAGE}"}
    default = arg_defaults(instructions)["BASE_IMAGE"]
    assert re.search(r"@sha256:[0-9a-f]{64}$|:\d+\.\d+\.\d+-slim-[a-z]+$", default), f"{default} is neither a digest nor an exact version"


def test_the_base_image_has_the_python_that_the_lock_is_made_for(instructions: list[Instruction], pyproject: dict[str, Any]) -> None:
    version = re.search(r"--python-version (\d+\.\d+)", DOCKERFILE.read_text())
    assert version
    assert f"python:{version[1]}." in arg_defaults(instructions)["BASE_IMAGE"]
    assert Requirement(f"python{pyproject['project']['requires-python']}").specifier.contains(version[1])


# What goes into the image


def test_a_package_is_installed_only_after_its_hash_was_checked(instructions: list[Instruction]) -> None:
    commands = list(pip_commands(instructions))
    downloads = [command for command in commands if "--no-index" not in command]
    installs = [command for command in commands if "--no-index" in command]
    assert downloads and installs
    for command in downloads:
        assert "--require-hashes" in command, command
        assert "--only-binary :all:" in command, f"a source distribution would run its own code: {command}"
        assert "--requirement /build/image.txt" in command, command
    (wheels,) = {match[1] for command in downloads for match in re.finditer(r"--dest (\S+)", command)}
    for command in installs:
        assert f"--find-links {wheels}" in command, command


def test_the_final_stage_gets_the_installed_packages_and_nothing_else(final: list[Instruction]) -> None:
    copy = only(final, "COPY")
    assert "--from=build" in copy.text
    assert copy.words() == ["/opt/dbt-runner", "/opt/dbt-runner"]
    assert not of(final, "ADD")
    assert not list(pip_commands(final))


def test_no_stage_brings_a_compiler_or_keeps_a_package_cache(instructions: list[Instruction]) -> None:
    assert not [run.text for run in of(instructions, "RUN") if COMPILERS.search(run.text)]
    for command in pip_commands(instructions):
        assert "--no-cache-dir" in command, command


def test_the_build_sees_only_the_files_that_it_copies(instructions: list[Instruction]) -> None:
    ignore = [line for line in (RUNNER / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignore[0] == "*"
    allowed = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    copied = {source for copy in of(instructions, "COPY") if "--from=" not in copy.text for source in copy.words()[:-1]}
    assert copied == allowed
    assert all((RUNNER / source).exists() for source in copied)


def test_the_image_has_every_warehouse_unless_told_otherwise(instructions: list[Instruction], warehouses: set[str]) -> None:
    default = arg_defaults(instructions)["WAREHOUSES"].split(",")
    assert sorted(default) == sorted(warehouses)


def test_no_secret_is_in_an_argument_a_variable_or_a_label(instructions: list[Instruction]) -> None:
    named = [
        name
        for keyword in ("ARG", "ENV", "LABEL")
        for instruction in of(instructions, keyword)
        for name, value in instruction.assignments().items()
        if SECRET_NAME.search(name) or SECRET_NAME.search(value)
    ]
    assert not named
    assert not [instruction.text for instruction in instructions if re.search(r"https?://|-----BEGIN|AKIA[A-Z0-9]{16}", instruction.text)]


# How it runs


def test_the_image_runs_as_a_fixed_user_that_is_not_root(final: list[Instruction]) -> None:
    uid, _, gid = only(final, "USER").text.partition(":")
    assert uid.isdecimal() and gid.isdecimal(), "a name says nothing to an orchestrator that wants to know that it is not root"
    assert int(uid) >= 10000 and int(gid) >= 10000
    created = " ".join(run.text for run in of(final, "RUN"))
    assert f"--uid {uid} " in created and f"--gid {gid} " in created
    # Nothing is given to that user: it can read the programs and change none.
    assert not re.search(r"\bch(own|mod)\b", " ".join(instruction.text for instruction in final))


def test_a_read_only_root_file_system_is_enough(final: list[Instruction]) -> None:
    environment = {name: value for env in of(final, "ENV") for name, value in env.assignments().items()}
    assert json.loads(only(final, "VOLUME").text) == ["/tmp"]
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


def test_nothing_is_looked_for_where_a_run_can_write(final: list[Instruction]) -> None:
    environment = {name: value for env in of(final, "ENV") for name, value in env.assignments().items()}
    assert only(final, "WORKDIR").text == image_process.WORKING_DIRECTORY
    assert environment["HOME"] == image_process.HOME
    assert f"--home-dir {image_process.HOME} " in " ".join(run.text for run in of(final, "RUN"))
    assert "-I" in json.loads(only(final, "ENTRYPOINT").text)


def test_packages_and_standard_library_are_compiled_before_python_is_told_to_write_nothing(instructions: list[Instruction]) -> None:
    compiled = [place for place, run in enumerate(instructions) if run.keyword == "RUN" and "-m compileall" in run.text]
    quiet = [place for place, env in enumerate(instructions) if env.keyword == "ENV" and "PYTHONDONTWRITEBYTECODE" in env.assignments()]
    assert len(quiet) == 1
    assert max(compiled) < quiet[0]
    assert ["/opt/dbt-runner/lib" in instructions[place].text for place in compiled] == [True, False]
    assert 'get_path("stdlib")' in instructions[compiled[1]].text
    for place in compiled:
        assert "--invalidation-mode unchecked-hash" in instructions[place].text, (
            "a builder may set other times, and then each is compiled anew"
        )


def test_the_container_is_the_runner_itself_and_is_stopped_by_sigterm(final: list[Instruction]) -> None:
    # As a JSON list: a shell in between would be process 1 and keep the signal to itself.
    assert tuple(json.loads(only(final, "ENTRYPOINT").text)) == image_process.TASK_ENTRY_POINT
    assert json.loads(only(final, "CMD").text) == ["--help"]
    assert only(final, "STOPSIGNAL").text == "SIGTERM"


def test_task_and_function_start_what_the_image_holds(final: list[Instruction]) -> None:
    python = f"{only(final, 'COPY').words()[1]}/bin/python3"
    assert {image_process.TASK_ENTRY_POINT[0], image_process.FUNCTION_ENTRY_POINT[0]} == {python}
    assert any(".[lambda," in run.text for run in of(parse(DOCKERFILE.read_text()), "RUN"))


def test_the_image_has_no_health_check(instructions: list[Instruction]) -> None:
    """ECS ignores it, and elsewhere it would run a process of its own beside an attempt."""
    assert not of(instructions, "HEALTHCHECK")


def test_the_labels_say_where_the_image_comes_from(final: list[Instruction], pyproject: dict[str, Any]) -> None:
    labels = only(final, "LABEL").assignments()
    arguments = {name for arg in of(final, "ARG") for name in arg.assignments()}
    for label, argument in {
        "version": "VERSION",
        "revision": "REVISION",
        "created": "CREATED",
        "source": "SOURCE",
        "base.name": "BASE_IMAGE",
    }.items():
        assert labels[f"org.opencontainers.image.{label}"] == f"${{{argument}}}"
        assert argument in arguments, f"ARG {argument} is not in the final stage: the label would be empty"
    assert labels["org.opencontainers.image.licenses"] == pyproject["project"]["license"]


# The lock


def test_each_line_of_the_lock_is_a_pinned_version_or_its_hash() -> None:
    lines = LOCK.read_text().splitlines()
    pinned = re.compile(r"[a-z0-9][a-z0-9.-]*(\[[a-z0-9, -]+\])?==[A-Za-z0-9.!+]+( ; [\w .'()<>=!]+)? \\")
    hashed = re.compile(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?")
    # So no index, host, URL, path or option can be in it.
    assert not [line for line in lines if not pinned.fullmatch(line) and not hashed.fullmatch(line)]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.endswith("\\"):
            assert hashed.fullmatch(following), f"no hash after: {line}"


def test_the_lock_has_one_version_of_each_package() -> None:
    assert not {name: versions for name, versions in parse_lock(LOCK.read_text()).items() if len(versions) > 1}


def test_the_lock_satisfies_pyproject_with_every_warehouse(pyproject: dict[str, Any], warehouses: set[str]) -> None:
    project = pyproject["project"]
    wanted = [*project["dependencies"], *pyproject["build-system"]["requires"]]
    wanted += [requirement for extra in sorted(warehouses) for requirement in project["optional-dependencies"][extra]]
    pins = parse_lock(LOCK.read_text())
    missed = [
        requirement
        for requirement in map(Requirement, wanted)
        if not any(requirement.specifier.contains(version) for version in pins.get(canonicalize_name(requirement.name), ()))
    ]
    assert not missed, f"{[str(requirement) for requirement in missed]}: make the lock anew with the command in {DOCKERFILE.name}"


def test_the_lock_has_nothing_that_only_tests_and_the_local_stack_need() -> None:
    pins = parse_lock(LOCK.read_text())
    assert not {"moto", "jsonata-python", "pytest", "mypy", "ruff", "sfnx", "tftest"} & pins.keys()


def test_the_image_ships_the_versions_that_the_tests_run_with() -> None:
    tested = parse_lock((ROOT / "requirements-dev.lock").read_text())
    others = {name: versions for name, versions in parse_lock(LOCK.read_text()).items() if not versions <= tested.get(name, set())}
    assert not others, f"{others}: make the lock anew with the command in {DOCKERFILE.name}"


def test_the_command_that_makes_the_lock_names_every_warehouse_and_the_build_tools(warehouses: set[str], pyproject: dict[str, Any]) -> None:
    comments = "\n".join(line for line in DOCKERFILE.read_text().splitlines() if line.startswith("#"))
    assert set(re.findall(r"--extra (\S+)", comments)) == warehouses | {"lambda", "openlineage"}
    build = [line for line in (RUNNER / "requirements" / "build.in").read_text().splitlines() if line and not line.startswith("#")]
    assert build == pyproject["build-system"]["requires"]
