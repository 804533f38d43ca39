"""Keeps code and settings that a run left behind out of the process that holds the control role's credentials.

The worker runs as the same user and can write to the temporary folder. Python takes modules from the working directory and from
PYTHONPATH, and libraries take code and settings from the home directory: botocore models and a `credential_process` from ~/.aws,
requests a ~/.netrc, OpenLineage an openlineage.yml from either. So the module, the image and the local stand-ins start the process with
`-I`, from `/`, without a home directory; here it makes sure of that before it uses a credential.
https://docs.python.org/3/using/cmdline.html#cmdoption-I
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dbt_runner.errors import RUNNER_ERROR, TypedError

# By these a library finds a file, whatever its working and home directories are. The module refuses them in env_vars as far as a run
# could write there; an image can set them as well.
_PATHS = ("HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "AWS_CONFIG_FILE")
_MORE_PATHS = ("AWS_SHARED_CREDENTIALS_FILE", "AWS_DATA_PATH", "BOTO_CONFIG", "NETRC", "OPENLINEAGE_CONFIG", "OPENSSL_CONF")


def require(environment: Mapping[str, str]) -> None:
    """Refuses to go on in a process that could take code or settings from where a run can write.

    Args:
        environment: this process's environment variables.

    Raises:
        TypedError: Dbt.RunnerError when the process was not started with `-I`, or works or looks for settings in the temporary folder.
    """
    faults = [] if sys.flags.isolated else ["it was started without -I"]
    writable = _writable(environment)
    if _is_below(Path.cwd(), writable):
        faults.append(f"its working directory is {Path.cwd()}")
    for name in (*_PATHS, *_MORE_PATHS):
        faults += [f"{name} is {path}" for path in environment.get(name, "").split(os.pathsep) if path and _is_below(Path(path), writable)]
    if faults:
        raise TypedError(
            RUNNER_ERROR,
            "the process would take code or settings from a folder that runs can write to: "
            f"{'; '.join(faults)}. Use the module and the image of the same version, and leave the image's entry point as it is",
        )


def _writable(environment: Mapping[str, str]) -> set[Path]:
    return {Path(folder).resolve() for folder in ("/tmp", "/dev/shm", environment.get("TMPDIR") or tempfile.gettempdir())}


def _is_below(path: Path, folders: set[Path]) -> bool:
    resolved = Path("/", path).resolve()
    return any(resolved.is_relative_to(folder) for folder in folders)
