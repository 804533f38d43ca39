"""All services: what moto does not know."""

from __future__ import annotations

from typing import Any

from moto.core import errors
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse

from dbt_runner.local.moto_patches.registry import Patch, patch

PATCHES: list[Patch] = []


class Lacking(ServiceException):  # type: ignore[misc]  # moto brings types of its own, without a marker
    """moto takes the service of an exception from its module: a class of its own has none, and so is no error of the service's model."""

    code = "InvalidAction"


@patch("core.unknown-actions", PATCHES)
def unknown_actions(patch: Patch) -> None:
    """moto answers an action that it does not have with 500, which every client takes for an outage: Terraform tries for minutes.

    AWS answers what a service does not know with 400. The answer names the action, so that it stands in the client's message.
    """
    original = BaseResponse.call_action

    def call_action(self: Any) -> Any:
        try:
            return original(self)
        except NotImplementedError as exc:
            name = f"{self.boto3_service_name}:{self._get_action()}"
            said = f"the embedded AWS lacks {name} ({exc}): leave out what calls it, or use an AWS account"
            return self.serialized(ActionResult(Lacking(said)))

    patch.set(BaseResponse, "call_action", call_action)
    # No service's model has AWS's own code for it, of which moto would warn.
    patch.set(errors, "COMMON_ERROR_CODES", [*errors.COMMON_ERROR_CODES, Lacking.code])
