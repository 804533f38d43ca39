"""ministack with what the module needs and it lacks; runs in an environment of its own, started by `second_aws.engine`.

A file for each service. Everything rests on private names of the one version that `requirements.in` names, and each patch has a canary in
`canaries`, which fails when ministack gains the feature. It imports ministack and the standard library; of the runner only
`dbt_runner.local.lambda_sandbox` and what that needs, which is nothing else.
"""
