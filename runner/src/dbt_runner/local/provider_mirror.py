"""Where Terraform takes the AWS provider from: its own settings, or a mirror on this machine.

Machines without a way to the registry have the provider in a directory, a filesystem mirror. Terraform knows some places
by itself; for the others it needs a CLI configuration, which is written here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dbt_runner.local.errors import TerraformError

_PROVIDER = Path("registry.terraform.io", "hashicorp", "aws")
_SEARCHED = (Path("/opt"), Path("/usr/local"))


def terraform_environ(
    environ: Mapping[str, str], directory: Path, *, warn: Callable[[str], None], searched: Sequence[Path] = _SEARCHED
) -> dict[str, str]:
    """The environment in which Terraform finds the AWS provider.

    In this order: the mirror that TF_PROVIDER_MIRROR names; the user's CLI configuration, if there is one; a mirror where
    Terraform looks by itself; a mirror one level below the `searched` directories; the registry. `directory` gets the CLI
    configuration, if one is needed. `warn` is told of a TF_CLI_CONFIG_FILE that does not exist, which is ignored.

    Raises TerraformError when TF_PROVIDER_MIRROR names no mirror of the AWS provider.
    """
    result = dict(environ)
    asked_for = environ.get("TF_PROVIDER_MIRROR")
    if asked_for:
        if not is_mirror(Path(asked_for)):
            raise TerraformError(
                f"TF_PROVIDER_MIRROR is {asked_for}, which holds no {_PROVIDER}. Set it to a directory filled by "
                "`terraform providers mirror`, or unset it to use the registry."
            )
        result["TF_CLI_CONFIG_FILE"] = str(_write_cli_config(directory, Path(asked_for)))
        return result
    config = environ.get("TF_CLI_CONFIG_FILE")
    if config and not Path(config).is_file():
        warn(f"TF_CLI_CONFIG_FILE is {config}, which does not exist: ignored")
        del result["TF_CLI_CONFIG_FILE"]
        config = None
    if config or _default_cli_config(environ).is_file() or any(map(is_mirror, implied_mirrors(environ))):
        return _with_plugin_cache(result)
    mirror = _search(searched)
    if mirror is None:
        return _with_plugin_cache(result)
    result["TF_CLI_CONFIG_FILE"] = str(_write_cli_config(directory, mirror))
    return result


def is_mirror(directory: Path) -> bool:
    """Whether a directory is a filesystem mirror that has the AWS provider."""
    try:
        return (directory / _PROVIDER).is_dir()
    except OSError:
        return False


def implied_mirrors(environ: Mapping[str, str]) -> list[Path]:
    """The directories in which Terraform looks for mirrors without being told.

    https://developer.hashicorp.com/terraform/cli/config/config-file#implied-local-mirror-directories
    """
    home = Path(environ.get("HOME", "~")).expanduser()
    if sys.platform == "darwin":
        support = Path("Library", "Application Support", "io.terraform", "plugins")
        return [home / ".terraform.d" / "plugins", home / support, Path("/") / support]
    data_home = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    data_dirs = (environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    shared = [Path(directory) for directory in data_dirs if directory]
    return [home / ".terraform.d" / "plugins", *(directory / "terraform" / "plugins" for directory in [data_home, *shared])]


def _default_cli_config(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME", "~")).expanduser() / ".terraformrc"


def _search(searched: Sequence[Path]) -> Path | None:
    for parent in searched:
        try:
            candidates = sorted(parent.iterdir())
        except OSError:
            continue
        for candidate in candidates:
            if is_mirror(candidate):
                return candidate
    return None


def _write_cli_config(directory: Path, mirror: Path) -> Path:
    path = directory / "terraform.tfrc"
    quoted = str(mirror.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    path.write_text(
        "# Written by dbt-runner: take the AWS provider from the mirror on this machine.\n"
        "provider_installation {\n"
        "  filesystem_mirror {\n"
        f'    path    = "{quoted}"\n'
        f'    include = ["{_PROVIDER.as_posix()}"]\n'
        "  }\n"
        "  direct {\n"
        f'    exclude = ["{_PROVIDER.as_posix()}"]\n'
        "  }\n"
        "}\n",
        encoding="utf-8",
    )
    return path


def _with_plugin_cache(environ: dict[str, str]) -> dict[str, str]:
    """Keep what is downloaded: the provider is some 150 MB, and every stack has a working directory of its own."""
    if "TF_PLUGIN_CACHE_DIR" not in environ:
        caches = Path(environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".cache")
        cache = caches / "dbt-runner" / "terraform-plugins"
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError:
            return environ
        if os.access(cache, os.W_OK):
            environ["TF_PLUGIN_CACHE_DIR"] = str(cache)
            # Without a lock file Terraform would download again to learn the checksums. Nobody keeps this lock file.
            environ["TF_PLUGIN_CACHE_MAY_BREAK_DEPENDENCY_LOCK_FILE"] = "true"
    return environ
