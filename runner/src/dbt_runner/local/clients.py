"""How the emulator is reached, and nothing else: a local run must never get to a real account."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, cast

ACCOUNT = "123456789012"
REGION = "us-east-1"

# Invoke answers when the function has ended, which is after 15 minutes at most.
_READ_TIMEOUT_SECONDS = {"lambda": 1000}

# The emulator looks at neither, but every client wants to sign.
_ACCESS_KEY = _SECRET_KEY = "test"


def client_environ(endpoint: str) -> dict[str, str]:
    """The variables with which boto3, the AWS CLI and Terraform reach the emulator at `endpoint` from another process.

    The user's files of profiles and credentials are put out of reach.
    """
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": _ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": _SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def without_aws_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The given environment less everything by which AWS's tools choose an account, an endpoint or credentials."""
    return {name: value for name, value in environ.items() if not name.startswith("AWS_")}


def boto3_client(service: str, endpoint: str, region: str = REGION) -> Any:
    """A client of the emulator. Whatever profile, proxy or credentials the environment holds has no effect on it."""
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    # Each setting is (key in a profile, environment variable, default, conversion): the first two are never looked at.
    nowhere = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    bare = Session(session_vars=cast(Any, {"profile": (None, None, None, None), **nowhere}))
    session = boto3.session.Session(_ACCESS_KEY, _SECRET_KEY, region_name=region, botocore_session=bare)
    # An emulator that fails once does so always; in state machines Retry is what retries.
    config = Config(
        proxies={},
        retries={"max_attempts": 0},
        s3={"addressing_style": "path"},
        read_timeout=_READ_TIMEOUT_SECONDS.get(service, 60),
    )
    return cast(Any, session).client(service, endpoint_url=endpoint, config=config)
