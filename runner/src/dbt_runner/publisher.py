"""Whoever publishes: what of their environment a project may see, and which of their secrets must be in no release.

A project is other people's code. dbt's Jinja reads any variable of its process and can put it into the manifest, which is readable to
every role that reads releases. So dbt gets a list of harmless variables, and of the others only those that the publisher names (`--env`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dbt_runner.errors import INVALID_REQUEST, TypedError
from dbt_runner.masking import SHORTEST, Mask

# Where programs are, how text is written, and the time zone. HOME and TMPDIR are set to folders of their own.
_HARMLESS = ("PATH", "LANG", "LANGUAGE", "TZ", "TZDIR", "SYSTEMROOT")
_HARMLESS_PREFIXES = ("LC_",)
# What the network needs, and git's and ssh's logins: for `dbt deps` alone, which runs git and asks the hub.
_NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("HOME", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "SSH_ASKPASS", "DBT_PACKAGE_HUB_URL", "DBT_ENGINE_PACKAGE_HUB_URL"),
)
# DBT_ENV_SECRET_*: the tokens that packages.yml names for private repositories. dbt refuses them in models. GIT_DIR and its like, which a
# git hook has, would lead git to another repository.
_NETWORK_PREFIXES = (
    *("GIT_ASKPASS", "GIT_CONFIG", "GIT_HTTP_", "GIT_PROXY_", "GIT_SSH", "GIT_SSL_", "GIT_TERMINAL_PROMPT", "GIT_ALLOW_PROTOCOL"),
    "DBT_ENV_SECRET_",
)

# Not `file`, by which a repository that lies in the project could name a program for git to run (--upload-pack). A publisher with packages
# in repositories on this machine sets the variable themselves. https://git-scm.com/docs/git#Documentation/git.txt-codeGITALLOWPROTOCOLcode
_PROTOCOLS = "https:http:ssh:git"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The publisher's own identity at AWS and at GitHub's token issuer, and the runner's settings: no project has a use for them.
_NEVER = re.compile(r"AWS_|ACTIONS_|ECS_|DBT_RUNNER_|LAMBDA_|_HANDLER$|_X_AMZN_")
# They would change how dbt itself is started.
_PROCESS = re.compile(r"(PATH|HOME|TMPDIR)$|PYTHON|LD_|DYLD_")
_NOT_SECRET = frozenset(
    {"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_STS_REGIONAL_ENDPOINTS", "AWS_MAX_ATTEMPTS", "AWS_RETRY_MODE", "AWS_CA_BUNDLE"}
)
_CREDENTIAL = re.compile(
    r"TOKEN|SECRET|PASS|CREDENTIAL|PRIVATE|APIKEY|WEBHOOK|(^|_)(KEY|KEYS|PWD|PAT|AUTH|JWT|DSN|COOKIE|SAS|SIGNATURE)($|_)"
    r"|^GIT_CONFIG_VALUE_|CONNECTION_?STRING",
    re.IGNORECASE,
)
# Names that look like it and hold none: the shell's folders.
_NO_CREDENTIAL = frozenset({"PWD", "OLDPWD", "SSH_AUTH_SOCK"})
# PEM (RFC 7468), also inside a JSON string, with some of its base64, so that a mention of it is no key.
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:\s|\\r|\\n)+(?:[A-Za-z-]+: [^\n]+\n|\s)*[A-Za-z0-9+/=]{32}")


@dataclass(frozen=True)
class Publisher:
    """The environment of a process that publishes.

    Attributes:
        own: its environment variables.
        given: the variables that the project gets, by `--env`.
        credentials: further secrets of the publisher, such as those of its AWS session: name -> value.
    """

    own: Mapping[str, str]
    given: Mapping[str, str]
    credentials: Mapping[str, str]

    @classmethod
    def of(cls, own: Mapping[str, str], given: Iterable[str] = (), credentials: Mapping[str, str] | None = None) -> Publisher:
        """A publisher with these variables.

        Args:
            given: what `--env` was given: NAME=VALUE, or NAME for the value that `own` has.

        Raises:
            TypedError: Dbt.InvalidRequest for a name that a project never gets, or that has no value.
        """
        return cls(own, dict(_assigned(own, text) for text in given), credentials or {})

    def parse_environment(self, folder: Path) -> dict[str, str]:
        """The variables of a process that parses the project.

        Args:
            folder: writable and private; HOME and TMPDIR become empty folders in it.
        """
        home, temporary = folder / "home", folder / "tmp"
        for private in (home, temporary):
            private.mkdir(mode=0o700, exist_ok=True)
        harmless = {name: value for name, value in self.own.items() if name in _HARMLESS or name.startswith(_HARMLESS_PREFIXES)}
        return {**harmless, **self.given, "HOME": str(home), "TMPDIR": str(temporary)}

    def packages_environment(self, folder: Path) -> dict[str, str]:
        """The variables of a process that installs packages: in addition git's logins, the network's settings and DBT_ENV_SECRET_*.

        Args:
            folder: as `parse_environment`.
        """
        network = {name: value for name, value in self.own.items() if name in _NETWORK or name.startswith(_NETWORK_PREFIXES)}
        return {"GIT_ALLOW_PROTOCOL": _PROTOCOLS, **self.parse_environment(folder), **network, **self.given}

    @cached_property
    def secrets(self) -> Mapping[str, str]:
        """Values that must be in no release and in no message: name of the variable -> value."""
        found = dict(self.credentials)
        for name, value in {**self.own, **self.given}.items():
            if name not in _NOT_SECRET | _NO_CREDENTIAL and _CREDENTIAL.search(name) and not _is_path(value):
                found[name] = value
            elif password := _password_in_url(value):
                found[name] = password
        return {name: value for name, value in found.items() if len(value) >= SHORTEST}

    @cached_property
    def mask(self) -> Mask:
        """Masks the secrets in messages."""
        return Mask(self.secrets.values())

    def check(self, contents: Iterable[tuple[str, bytes]]) -> None:
        """Refuses contents that hold a secret of the publisher, or a private key.

        Args:
            contents: what to call each, and its bytes.

        Raises:
            TypedError: Dbt.InvalidRequest, naming the variable and the file, never the value.
        """
        for name, content in contents:
            # A file's name is read like its contents.
            if self.mask.occurs_in(content) or self.mask.occurs_in(os.fsencode(name)):
                variable = next((found for found, value in self.secrets.items() if _holds(value, name, content)), "a secret variable")
                raise TypedError(
                    INVALID_REQUEST,
                    f"nothing was published: {self.mask.text(name)} holds the value of {variable} in this environment, and a release is "
                    f"readable to every role that reads releases; take it out of the project. If {variable} is no secret, unset it for "
                    "this command",
                )
            if _PRIVATE_KEY.search(content):
                raise TypedError(INVALID_REQUEST, f"nothing was published: {name} holds a private key; take it out of the project's folder")

    def hint(self, message: str) -> str:
        """What to do about a variable that dbt missed; empty where its message is about something else."""
        missing = re.search(r"Env var required but not provided: '([^']+)'", message)
        if missing is None:
            return ""
        name = missing[1]
        if problem := _problem(name):
            return f"\n{problem}: give the project another name for it, or a default"
        return f"\ndbt gets only the variables that you name: pass --env {name} for the value of your environment, or --env {name}=VALUE"


def _assigned(own: Mapping[str, str], text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not _NAME.fullmatch(name):
        raise TypedError(INVALID_REQUEST, f"--env: {name!r} is no name of a variable: give NAME or NAME=VALUE")
    if problem := _problem(name):
        raise TypedError(INVALID_REQUEST, f"--env: {problem}")
    if not separator:
        if name not in own:
            raise TypedError(INVALID_REQUEST, f"--env: {name} is not set in this environment: set it, or give {name}=VALUE")
        value = own[name]
    if "\0" in value:
        raise TypedError(INVALID_REQUEST, f"--env: the value of {name} holds a NUL, which no variable can hold")
    return name, value


def _problem(name: str) -> str:
    if _NEVER.match(name) and name not in _NOT_SECRET:
        return f"{name} belongs to whoever publishes or to the runner, and a project never gets it"
    if _PROCESS.match(name):
        return f"{name} is set by dbt-runner for dbt's own process"
    return ""


def _holds(value: str, name: str, content: bytes) -> bool:
    one = Mask([value])
    return one.occurs_in(content) or one.occurs_in(os.fsencode(name))


def _is_path(value: str) -> bool:
    """A file that holds a secret is not one by its name."""
    try:
        return os.path.isabs(value) and os.path.exists(value)
    except ValueError:
        return False


def _password_in_url(value: str) -> str | None:
    if "://" not in value or "@" not in value:
        return None
    try:
        password = urlsplit(value).password
    except ValueError:
        return None
    return unquote(password) if password else None


def missing_calls(function: str, texts: Iterable[tuple[str, str]], known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What a project's Jinja asks for by `function('name')`, without a default, and that has no value: name, and the first file that asks.

    Args:
        function: env_var or var.
        texts: names of files and their texts.
        known: names that have a value.
    """
    seen = set(known)
    call = re.compile(rf"(?<![\w.]){function}\(\s*(['\"])([^'\"]+)\1\s*\)")
    for file, text in texts:
        for found in call.finditer(text):
            if found[2] not in seen:
                seen.add(found[2])
                yield found[2], file
