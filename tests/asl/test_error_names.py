"""What an error means is known of every error that the services' models name for a call of the definitions, and of no other."""

from __future__ import annotations

import pytest
from botocore.session import get_session

from asl import error_names, render
from asl.error_names import MAY_PASS, PASSES, STAYS
from asl.machine import tasks

CALLS = sorted({state["Resource"] for name in render.DEFINITIONS for _, _, state in tasks(render.load(name))})
INVOKE, RUN_TASK = "arn:aws:states:::lambda:invoke", "arn:aws:states:::ecs:runTask.sync"


def operation_of(resource: str) -> tuple[str, str]:
    service, action = error_names.integration(resource)
    return service, action[:1].upper() + action[1:].removesuffix(".sync")


def unclassified(service: str, operation: str, shapes: frozenset[str]) -> list[str]:
    """The errors that stand in no class, or in several, or in one though no model has them."""
    classes = error_names.meaning(service, operation)
    standing = [name for names in classes.values() for name in names]
    return sorted({name for name in shapes | set(standing) if standing.count(name) != 1 or name not in shapes})


@pytest.mark.parametrize("resource", CALLS)
def test_every_modelled_error_of_a_call_means_one_thing(resource: str) -> None:
    service, operation = operation_of(resource)
    unknown = unclassified(service, operation, error_names.modelled(service, operation))
    assert unknown == [], f"{operation}: say in asl/error_names.py what these mean, then name them in the definitions: {unknown}"


def test_an_error_of_a_newer_model_is_named() -> None:
    newer = error_names.modelled("lambda", "Invoke") | {"SandboxFrozenException"}
    assert unclassified("lambda", "Invoke", newer) == ["SandboxFrozenException"]
    older = error_names.modelled("lambda", "Invoke") - {"ENINotReadyException"}
    assert unclassified("lambda", "Invoke", older) == ["ENINotReadyException"]


@pytest.mark.parametrize("service", error_names.INTEGRATIONS)
def test_a_service_has_no_name_that_its_model_lacks(service: str) -> None:
    known = error_names.INTEGRATIONS[service]
    model = get_session().get_service_model(known.model)
    shapes = {str(shape.name) for shape in model.error_shapes}
    allowed = error_names.spelled(service, *shapes, known.base, "SdkClientException") | {*known.added}
    assert error_names.of_service(service) == allowed
    throttling = {f"{known.prefix}.{name}" for name in ("ThrottlingException", "Throttling")} & error_names.of_service(service)
    assert bool(throttling) is ("ThrottlingException" in shapes)


@pytest.mark.parametrize("resource", CALLS)
def test_what_passes_holds_the_base_class_and_nothing_that_decides_a_path(resource: str) -> None:
    service, _ = error_names.integration(resource)
    passing = error_names.passing(resource)
    assert {error_names.base(service), f"{error_names.prefix(service)}.SdkClientException"} <= passing
    assert ("States.Timeout" in passing) is (resource not in (INVOKE, RUN_TASK))
    assert not {error for error in passing if "ConditionalCheckFailed" in error or "AlreadyExists" in error or "DoesNotExist" in error}
    assert passing <= error_names.of_service(service) | {"States.Timeout"}


def test_refusals_before_anything_ran_are_tried_again() -> None:
    tried = error_names.passing(INVOKE) | error_names.perhaps_passing(INVOKE)
    for name in ("CodeArtifactUserPending", "ResourceConflict", "SubnetIPAddressLimitReached", "ENINotReady", "EC2Throttled"):
        assert f"Lambda.{name}Exception" in error_names.passing(INVOKE)
    assert {f"Lambda.{name}" for name in error_names.modelled("lambda", "Invoke") if name.startswith("KMS")} <= tried
    assert error_names.meaning("ecs", "RunTask")[MAY_PASS] and not set(error_names.meaning("lambda", "Invoke")[STAYS]) & tried
    assert error_names.meaning("aws-sdk:s3", "PutObject")[PASSES] == [], "S3's throttling has no name"
