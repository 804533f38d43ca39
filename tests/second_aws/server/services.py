"""The services that act under a role of the module: they assume it, and each of their calls is asked of its policy."""

from __future__ import annotations

import contextvars
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ministack.core.responses import get_account_id, get_region, new_uuid
from ministack.services import ecs, eventbridge, lambda_svc, scheduler, stepfunctions

from second_aws.server import keys, states
from second_aws.server.permissions import allowed, assumed_by_service, refused

Request = tuple[str, str, Mapping[str, Any]]

# Between two looks at what is due: 10 s otherwise.
_TICK_SECONDS = 1
_SYNC_RULE = "rule/StepFunctionsGetEventsForECSTaskRule"
# What Step Functions asks for as soon as a state machine has logs and tracing.
# https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html and https://docs.aws.amazon.com/step-functions/latest/dg/concepts-xray-tracing.html
_LOG_DELIVERY = ("CreateLogDelivery", "GetLogDelivery", "UpdateLogDelivery", "DeleteLogDelivery", "ListLogDeliveries")
_LOG_POLICIES = ("PutResourcePolicy", "DescribeResourcePolicies", "DescribeLogGroups")
_TRACING = ("PutTraceSegments", "PutTelemetryRecords", "GetSamplingRules", "GetSamplingTargets")

# The role and the resource for which a rule or a schedule acts at the moment.
_acting: contextvars.ContextVar[tuple[str, str, str] | None] = contextvars.ContextVar("acting", default=None)


def install() -> None:
    _install_states()
    _install_targets()
    _install_containers()
    _install_functions()


# --- Step Functions ------------------------------------------------------------------------------------------------------


def _install_states() -> None:
    invoke, start = stepfunctions._invoke_resource, stepfunctions._start_execution

    def asked(resource: str, parameters: dict[str, Any]) -> Any:
        execution = states.execution.get()
        if execution is None or ":::" not in resource:
            return invoke(resource, parameters)
        role = _machine(execution["stateMachineArn"])["roleArn"]
        integration = resource.split(":::")[1].removeprefix("aws-sdk:").split(".")[0]
        for action, what, context in _of_state(integration, parameters):
            if not allowed(role, action, what, context):
                raise stepfunctions._ExecutionError(f"{_prefix(integration)}.AccessDeniedException", f"{action} on {what} with {context}")
        return invoke(resource, parameters)

    def started(parameters: dict[str, Any]) -> Any:
        answer = start(parameters)
        machine = stepfunctions._resolve_state_machine_arn(parameters.get("stateMachineArn", ""))
        if machine and answer[0] == 200:
            role = _machine(machine)["roleArn"]
            assumed_by_service(role, "states.amazonaws.com", machine)
            for service, actions in (("logs", (*_LOG_DELIVERY, *_LOG_POLICIES)), ("xray", _TRACING)):
                for action in actions:
                    allowed(role, f"{service}:{action}", "*")
        return answer

    stepfunctions._invoke_resource = asked
    stepfunctions._start_execution = started


def _prefix(integration: str) -> str:
    service = integration.split(":")[0]
    return {"dynamodb": "DynamoDB", "events": "EventBridge"}.get(service, service.capitalize())


def _machine(arn: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = stepfunctions._state_machines.get(arn) or stepfunctions._state_machines[":".join(arn.split(":")[:7])]
    return found


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{get_region()}:{get_account_id()}:{resource}"


def _of_state(integration: str, parameters: Mapping[str, Any]) -> Iterator[Request]:
    """https://docs.aws.amazon.com/step-functions/latest/dg/service-integration-iam-templates.html"""
    service, operation = integration.split(":")
    action = operation[0].upper() + operation[1:]
    if service == "dynamodb":
        table = parameters.get("TableName") or next(iter(parameters["RequestItems"]))
        yield f"dynamodb:{action}", _arn("dynamodb", f"table/{table}"), keys.of_items(parameters)
    elif integration == "ecs:runTask":
        yield from _run_task(parameters)
    elif service == "ecs":
        for task in parameters.get("Tasks") or [parameters["Task"]]:
            yield f"ecs:{action}", task, {"ecs:cluster": keys.cluster_arn(parameters["Cluster"])}
    elif service == "sfn":
        yield f"states:{action}", parameters.get("ExecutionArn") or parameters["StateMachineArn"], {}
    elif service == "events":
        for entry in parameters["Entries"]:
            context = {"events:source": entry["Source"], "events:detail-type": entry["DetailType"]}
            yield "events:PutEvents", _arn("events", "event-bus/default"), context
    elif service == "sns":
        yield "sns:Publish", parameters["TopicArn"], {}
    elif service == "cloudwatch":
        yield "cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": parameters["Namespace"]}
    elif service == "s3":
        yield "s3:PutObject", f"arn:aws:s3:::{parameters['Bucket']}/{parameters['Key']}", {}
    elif service == "lambda":
        yield "lambda:InvokeFunction", parameters["FunctionName"], {}
    else:
        raise stepfunctions._ExecutionError("States.Runtime", f"what {integration} asks of IAM is not known here: add it to {__name__}")


def _run_task(parameters: Mapping[str, Any]) -> Iterator[Request]:
    definition = ecs._task_defs.get(ecs._resolve_td_key(parameters["TaskDefinition"]))
    cluster = keys.cluster_arn(parameters["Cluster"])
    task = f"{cluster.replace(':cluster/', ':task/')}/{new_uuid()}"
    yield "ecs:RunTask", definition["taskDefinitionArn"], {"ecs:cluster": cluster}
    if parameters.get("Tags"):
        yield "ecs:TagResource", task, {"ecs:CreateAction": "RunTask"}
    for role in (definition["taskRoleArn"], definition["executionRoleArn"]):
        yield "iam:PassRole", role, {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    for action in ("DescribeRule", "PutRule", "PutTargets"):
        yield f"events:{action}", _arn("events", _SYNC_RULE), {}
    # It looks at the task when the rule's event does not come, and stops it when the execution is aborted.
    for action in ("DescribeTasks", "StopTask"):
        yield f"ecs:{action}", task, {"ecs:cluster": cluster}


# --- rules and schedules -------------------------------------------------------------------------------------------------


def _install_targets() -> None:
    invoke, dispatch = eventbridge._invoke_target, eventbridge._dispatch_to_stepfunctions

    def as_role(target: Mapping[str, Any], event: Any, rule: Mapping[str, Any], *more: Any, **named: Any) -> Any:
        scheduled = "ScheduleExpression" in rule and "EventPattern" not in rule and "GroupName" in rule
        service = "scheduler.amazonaws.com" if scheduled else "events.amazonaws.com"
        arn = rule.get("Arn", "")
        # EventBridge Scheduler assumes a role for a group of schedules.
        source = re.sub(r":schedule/([^/]+)/.*", r":schedule-group/\1", arn) if scheduled else arn
        token = _acting.set((target.get("RoleArn", ""), service, source))
        try:
            return invoke(target, event, rule, *more, **named)
        finally:
            _acting.reset(token)

    def start(arn: str, payload: str) -> Any:
        role, service, source = _acting.get() or ("", "", "")
        machine = stepfunctions._resolve_state_machine_arn(arn)
        context = {"states:StateMachineQualifier": arn.rsplit(":", 1)[1]} if machine != arn else {}
        # AWS asks of an alias by its machine's ARN.
        if not assumed_by_service(role, service, source) or not allowed(role, "states:StartExecution", machine, context):
            return None
        return dispatch(arn, payload)

    scheduler._SCHEDULE_TICK_INTERVAL = _TICK_SECONDS
    eventbridge._invoke_target = as_role
    eventbridge._dispatch_to_stepfunctions = start


# --- what ECS and Lambda do for what they run ----------------------------------------------------------------------------


def _install_containers() -> None:
    register = ecs._register_metadata

    def prepared(task_arn: str, cluster: str, definition: dict[str, Any], container: dict[str, Any], *more: Any) -> Any:
        execution, task = definition["executionRoleArn"], definition["taskRoleArn"]
        requests = [*_pull(container["image"]), *_write_logs(container), *_read_secrets(container)]
        # All are asked, so that a refusal does not hide another.
        granted = [assumed_by_service(role, "ecs-tasks.amazonaws.com", task_arn) for role in (execution, task)]
        granted += [allowed(execution, *request) for request in requests]
        if not all(granted):
            raise RuntimeError(f"refused: {[request for request, yes in zip(requests, granted[2:], strict=True) if not yes]}")
        return register(task_arn, cluster, definition, container, *more)

    ecs._register_metadata = prepared


def _pull(image: str) -> Iterator[Request]:
    found = re.match(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.[a-z.]+/([^@:]+)", image)
    if found:
        yield "ecr:GetAuthorizationToken", "*", {}
        for action in ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer"):
            yield f"ecr:{action}", f"arn:aws:ecr:{found[2]}:{found[1]}:repository/{found[3]}", {}


def _write_logs(container: Mapping[str, Any]) -> Iterator[Request]:
    options = container.get("logConfiguration", {}).get("options", {})
    group = _arn("logs", f"log-group:{options.get('awslogs-group', '')}:log-stream:{options.get('awslogs-stream-prefix', '')}/dbt/0")
    for action in ("CreateLogStream", "PutLogEvents"):
        yield f"logs:{action}", group, {}


def _read_secrets(container: Mapping[str, Any]) -> Iterator[Request]:
    for secret in container.get("secrets", []):
        reference = secret["valueFrom"]
        if ":secretsmanager:" in reference:
            yield "secretsmanager:GetSecretValue", ":".join(reference.split(":")[:7]), {}
        else:
            yield "ssm:GetParameters", reference, {}


def _install_functions() -> None:
    call = stepfunctions._call_lambda

    def prepared(reference: str, event: Any) -> Any:
        _, config, name = lambda_svc._get_func_record_for_ref(reference)
        if config:
            role, group = config["Role"], config.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{name}"
            granted = [assumed_by_service(role, "lambda.amazonaws.com", "")]
            for action in ("CreateLogStream", "PutLogEvents"):
                granted.append(allowed(role, f"logs:{action}", _arn("logs", f"log-group:{group}:log-stream:0"), {}))
            if config.get("VpcConfig", {}).get("SubnetIds"):
                granted += [allowed(role, *request) for request in _interfaces(config["VpcConfig"])]
                # What Lambda may do the function's code may not: its requests carry the function's ARN.
                for action, what, _ in _interfaces(config["VpcConfig"]):
                    refused(role, action, what, {"lambda:SourceFunctionArn": reference})
            if not all(granted):
                raise stepfunctions._ExecutionError("Lambda.AccessDeniedException", json.dumps(granted))
        return call(reference, event)

    stepfunctions._call_lambda = prepared


def _interfaces(vpc: Mapping[str, Any]) -> Iterator[Request]:
    """https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions"""
    interface = _arn("ec2", "network-interface/eni-0")
    parts = [f"subnet/{name}" for name in vpc["SubnetIds"]] + [f"security-group/{name}" for name in vpc["SecurityGroupIds"]]
    for resource in (interface, *(_arn("ec2", part) for part in parts)):
        yield "ec2:CreateNetworkInterface", resource, {}
    for action in ("DescribeNetworkInterfaces", "DescribeSubnets"):
        yield f"ec2:{action}", "*", {}
    for action in ("AssignPrivateIpAddresses", "DeleteNetworkInterface", "UnassignPrivateIpAddresses"):
        yield f"ec2:{action}", interface, {}
