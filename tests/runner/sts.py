"""Help for the tests of the broker: STS by botocore's Stubber, which checks every request and orders the answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import boto3
import pytest
from botocore.stub import Stubber

REGION: Final = "eu-central-1"
ROLE = "arn:aws:iam::123456789012:role/analytics-prod-warehouse"
CREDENTIALS = {"AccessKeyId": "ASIAEXAMPLEEXAMPLE00", "SecretAccessKey": "secret-of-the-role", "SessionToken": "session-of-the-role"}


class Sts:
    """A client of STS, and what it will answer."""

    def __init__(self) -> None:
        self.client = boto3.client("sts", region_name=REGION, aws_access_key_id="AKIAEXAMPLE", aws_secret_access_key="x")
        self.stubber = Stubber(self.client)
        self.stubber.activate()

    def allows(self, times: int = 1, *, lasting: timedelta = timedelta(hours=1), **expected: Any) -> Sts:
        """Answers AssumeRole with a session that lasts so long from now; `expected` are the request's parameters."""
        credentials = {**CREDENTIALS, "Expiration": datetime.now(UTC) + lasting}
        answer = {"Credentials": credentials, "AssumedRoleUser": {"AssumedRoleId": "AROAEXAMPLEEXAMPLE00:r", "Arn": ROLE}}
        for _ in range(times):
            self.stubber.add_response("assume_role", answer, expected or None)
        return self

    def refuses(self, code: str = "AccessDenied", status: int = 403) -> Sts:
        self.stubber.add_client_error("assume_role", code, "not you", http_status_code=status)
        return self


@pytest.fixture
def sts(no_outside_settings: None) -> Sts:
    return Sts()
