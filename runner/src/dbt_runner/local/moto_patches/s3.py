"""S3: bucket policies."""

from __future__ import annotations

from typing import Any

from moto.iam import access_control

from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []


@patch("s3.tls-only-deny", PATCHES)
def tls_only_deny(patch: Patch) -> None:
    """In moto a Deny whose condition does not hold denies nevertheless, so that a TLS-only bucket refuses everything.

    On AWS a statement whose condition does not hold has no effect. Requests here count as sent over TLS: what the policy
    says of other ones is proven from the policy itself.
    """
    original = access_control.IAMPolicyStatement.is_action_permitted

    def is_action_permitted(self: Any, *args: Any, **kwargs: Any) -> Any:
        condition = self._statement.get("Condition") or {}
        insecure_only = str(condition.get("Bool", {}).get("aws:SecureTransport", "")).lower() == "false"
        if self._statement.get("Effect") == "Deny" and insecure_only:
            return access_control.PermissionResult.NEUTRAL
        return original(self, *args, **kwargs)

    patch.set(access_control.IAMPolicyStatement, "is_action_permitted", is_action_permitted)
