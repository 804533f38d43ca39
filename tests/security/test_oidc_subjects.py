"""Whose token may become a deployer or operator: Terraform takes no subject that a stranger at the same issuer could have.

Terraform judges every subject of the tables in two plans, whose messages name the refused ones. The properties below read the same
rules from Terraform and judge them here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from security.fuzzing import bounded
from terraform.test_validations import GOOD, Variables
from terraform.tool import Terraform, environment

pytestmark = [pytest.mark.terraform, pytest.mark.xdist_group("oidc-subjects")]

UUID = "0a1b2c3d-0a1b-2c3d-4e5f-0a1b2c3d4e5f"
ISSUERS = {
    "github": "https://token.actions.githubusercontent.com",
    "enterprise": "https://token.actions.githubusercontent.com/acme-inc",
    "ghe": "https://token.actions.acme.ghe.com",
    "ghes": "https://github.acme.example/_services/token",
    "gitlab": "https://gitlab.com",
    "own_gitlab": "https://git.acme.example",
    "bitbucket": "https://api.bitbucket.org/2.0/workspaces/acme/pipelines-config/identity/oidc",
    "circleci": f"https://oidc.circleci.com/org/{UUID}",
    "buildkite": "https://agent.buildkite.com",
    "terraform": "https://app.terraform.io",
    "okta": "https://acme.okta.com/oauth2/aus1",
    "auth0": "https://acme.auth0.com/",
    "google": "https://accounts.google.com",
    "eks": "https://oidc.eks.eu-central-1.amazonaws.com/id/0A1B",
    "azure": "https://login.microsoftonline.com/0a1b/v2.0",
    "devops": "https://vstoken.dev.azure.com/0a1b",
    "vercel": "https://oidc.vercel.com/acme",
    "unknown": "https://id.acme.example/x",
}

ACCEPTED = [
    ("github", "repo:acme/analytics:environment:prod"),
    ("github", "repo:acme/analytics:ref:refs/tags/v*"),
    ("github", "repo:acme/analytics:ref:refs/tags/v?.?"),
    ("github", "repo:acme/analytics:*"),
    ("github", "repo:acme/*"),
    ("github", "repo:octo-org@123456/analytics@456789:ref:refs/heads/main"),
    ("github", "repo:octo-org@123456/*"),
    ("github", "repo:ada_acme/analytics:ref:refs/heads/main"),
    ("github", "repository_owner:acme:environment:prod"),
    ("github", "repository_owner:acme"),
    ("github", "repository_owner_id:42:*"),
    ("github", "repository_id:7:ref:refs/heads/*"),
    ("github", "environment:prod:repository_id:7"),
    ("github", "environment:prod:repository_owner:acme:ref:*"),
    ("github", "repository_owner:acme:job_workflow_ref:acme/flows/.github/workflows/deploy.yml@*"),
    ("github", "job_workflow_ref:acme/flows/.github/workflows/deploy.yml@refs/heads/main:repository_owner:acme"),
    ("github", "workflow_ref:acme/analytics/.github/workflows/deploy.yml@refs/heads/main"),
    ("enterprise", "repo:acme/analytics:environment:prod"),
    ("enterprise", "enterprise:acme-inc:repo:*"),
    ("ghe", "repo:acme/analytics:ref:refs/heads/*"),
    ("ghes", "repo:acme/*"),
    ("gitlab", "project_path:acme/analytics:ref_type:branch:ref:main"),
    ("gitlab", "project_path:acme/analytics:ref_type:tag:ref:v*"),
    ("gitlab", "project_path:acme/data/analytics:*"),
    ("gitlab", "project_path:acme/*"),
    ("own_gitlab", "project_path:acme/analytics:ref_type:*"),
    ("bitbucket", f"{{{UUID}}}:*"),
    ("bitbucket", f"{{{UUID}}}:{{{UUID}}}:{{{UUID}}}"),
    ("circleci", f"org/{UUID}/project/{UUID}/user/*"),
    ("circleci", f"org/{UUID}/*"),
    ("buildkite", "organization:acme:pipeline:deploy:ref:refs/heads/main:commit:*:step:*"),
    ("terraform", "organization:acme:project:dbt:workspace:prod:run_phase:apply"),
    ("terraform", "organization:acme:*"),
    ("okta", "00uAda"),
    ("okta", "ada@acme.example"),
    ("auth0", "auth0|507f1f77bcf86cd799439020"),
    ("auth0", "google-oauth2|103547991597142817347"),
    ("google", "103547991597142817347"),
    ("eks", "system:serviceaccount:data:dbt"),
    ("eks", "system:serviceaccount:data:dbt-*"),
    ("eks", "system:serviceaccount:data:*"),
    ("azure", UUID),
    ("devops", "sc://acme/analytics/aws"),
    ("devops", "sc://acme/analytics/*"),
    ("vercel", "owner:acme:project:analytics:environment:production"),
    ("vercel", "owner:acme:project:*:environment:production"),
    ("unknown", "anything at all"),
    ("unknown", "tenant:acme:pipeline-*"),
    ("unknown", "tenant:acme:project:analytics:*"),
    ("unknown", "spiffe://acme.example/ns/data/*"),
    ("unknown", "system:serviceaccount:data:dbt"),
    ("unknown", "repo:acme/analytics:*"),
]

REFUSED = [
    # Nobody in particular
    *((key, wild) for key in ("github", "gitlab", "okta", "eks", "unknown") for wild in ("*", "?*", "**")),
    # A type and a wildcard
    ("auth0", "auth0|*"),
    ("auth0", "google-oauth2|*"),
    ("auth0", "auth0|507f*"),
    ("auth0", "samlp|acme|*"),
    ("unknown", "auth0|*"),
    ("unknown", "samlp|acme|*"),
    ("eks", "system:serviceaccount:*"),
    ("eks", "system:serviceaccount:*:dbt"),
    ("eks", "system:serviceaccount:da*:dbt"),
    ("eks", "system:serviceaccount:data*"),
    ("eks", "system:*"),
    ("unknown", "system:serviceaccount:*"),
    ("unknown", "system:node:*"),
    ("circleci", "org/*"),
    ("circleci", f"org/{UUID[:-1]}*"),
    ("circleci", f"org/{UUID}*"),
    ("circleci", f"org/*/project/{UUID}/*"),
    ("unknown", "org/*"),
    ("google", "10354*"),
    ("azure", f"{UUID[:8]}*"),
    ("okta", "00u*"),
    ("okta", "*@acme.example"),
    ("okta", "ada@*"),
    ("unknown", "ada@*"),
    ("unknown", "people/ada@*"),
    ("unknown", "user:*"),
    ("unknown", "email:ada:x:*"),
    ("unknown", "https://id.example/*"),
    ("unknown", "tenant:*"),
    # The owner behind a wildcard, or with one in it
    ("github", "repo:*/analytics:ref:refs/heads/main"),
    ("github", "repo:*/*"),
    ("github", "repo:acme*/analytics:ref:refs/heads/main"),
    ("github", "repo:acme*"),
    ("github", "repo:acm?/analytics:*"),
    ("github", "repo:acme-*/analytics:*"),
    ("github", "repo:acme@*/analytics@456:*"),
    ("github", "repo:acme"),
    ("github", "*:acme/analytics:*"),
    ("github", "rep?:acme/analytics:*"),
    ("github", "*repo:acme/analytics:*"),
    ("github", "environment:*:repository_owner:acme"),
    ("github", "repository_owner:acme*"),
    ("github", "repository_owner:*:environment:prod"),
    ("github", "repository_id:7*"),
    ("github", "repository_owner_id:4?"),
    # What a stranger may choose
    ("github", "environment:prod"),
    ("github", "ref:refs/heads/main"),
    ("github", "ref:refs/*"),
    ("github", "actor:ada"),
    ("github", "pull_request"),
    ("github", "job_workflow_ref:acme/flows/.github/workflows/deploy.yml@refs/heads/main"),
    ("github", "job_workflow_ref:acme/flows/.github/workflows/deploy.yml@*"),
    ("github", "job_workflow_ref:acme/flows/.github/workflows/deploy.yml@*:repository_owner:acme"),
    ("enterprise", "enterprise:acme*"),
    ("enterprise", "job_workflow_ref:acme/flows/.github/workflows/deploy.yml@refs/heads/main"),
    ("ghes", "job_workflow_ref:acme/flows/x.yml@main"),
    ("unknown", "job_workflow_ref:acme/flows/x.yml@main"),
    ("ghe", "repo:acme*/x:*"),
    ("gitlab", "project_path:*"),
    ("gitlab", "project_path:*/analytics:ref_type:branch:ref:main"),
    ("gitlab", "project_path:acme*/analytics:*"),
    ("gitlab", "project_path:acme"),
    ("gitlab", "ref_type:tag:*"),
    ("gitlab", "project_path:a?me/analytics:ref_type:*"),
    ("own_gitlab", "project_path:acme*"),
    ("bitbucket", "{*}:{*}"),
    ("bitbucket", "*"),
    ("bitbucket", f"{{{UUID[:-2]}*}}:*"),
    ("buildkite", "organization:*:pipeline:deploy:*"),
    ("buildkite", "organization:acme*"),
    ("buildkite", "pipeline:deploy:*"),
    ("terraform", "organization:acme*:project:*"),
    ("terraform", "workspace:prod:run_phase:apply"),
    ("devops", "sc://*/analytics/aws"),
    ("devops", "sc://acme*/analytics/aws"),
    ("devops", "sc://*"),
    ("vercel", "owner:*:project:analytics:*"),
    ("vercel", "owner:acme*"),
    ("unknown", "tenant:*:project:analytics"),
    ("unknown", "tenant:acme:*:analytics"),
    ("unknown", "tenant:acm?:project:analytics"),
    ("unknown", "acme*"),
    # Policy variables and blanks
    ("github", "repo:${aws:username}/analytics:*"),
    ("github", "repo:acme/${aws:x}"),
    ("github", " repo:acme/analytics:*"),
    ("github", "repo:acme/analytics:*\n"),
    ("github", ""),
]


def variables_of(subjects: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The good input with each subject as an operator's."""
    granted: dict[str, list[str]] = {}
    for issuer, subject in subjects:
        granted.setdefault(issuer, []).append(subject)
    providers = {key: {"url": url, "audiences": ["x"]} for key, url in ISSUERS.items()}
    grants = {issuer: {"subjects": each} for issuer, each in granted.items()}
    return {**GOOD, "oidc": {"providers": providers, "environments": {"prod": {"operator": grants}}}}


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> Variables:
    folder: Path = tmp_path_factory.mktemp("subjects")
    return Variables(Terraform(environment(tmp_path_factory.mktemp("terraform"))), folder)


@pytest.fixture(scope="module")
def refusals(variables: Variables) -> str:
    return "\n".join(variables.errors(variables_of(REFUSED)))


def test_each_owner_that_is_named_in_full_is_accepted(variables: Variables) -> None:
    assert variables.errors(variables_of(ACCEPTED)) == []


@pytest.mark.attack("oidc")
@pytest.mark.parametrize(("issuer", "subject"), REFUSED)
def test_what_a_stranger_could_have_is_refused_at_plan(refusals: str, issuer: str, subject: str) -> None:
    assert f'prod.operator.{issuer} ("{subject}")' in refusals


def test_the_message_says_what_to_write(refusals: str) -> None:
    assert 'prod.operator.circleci ("org/*"): write org/<organization id>/project/<project id>/user/*' in refusals
    assert 'prod.operator.auth0 ("auth0|*"): write each id in full, without a wildcard' in refusals
    assert re.search(r'\("environment:prod"\): write repo:<owner>/<repository>:environment:<name>; job_workflow_ref only beside', refusals)


@pytest.mark.control("oidc")
@pytest.mark.parametrize(
    "rule", ["repo:", "project_path:", "organization:", "org/", "system:", "sc://", "owner:", "each id", "the subject"]
)
def test_without_its_rule_a_stranger_gets_in(variables: Variables, rule: str) -> None:
    """With the rule's pattern taken out, each table has a subject of that rule that would pass."""
    rules = rules_of(variables)
    [number] = [n for n, each in enumerate(rules) if each["write"].startswith(rule)]
    open_rules = [*rules[:number], {**rules[number], "subject": ""}, *rules[number + 1 :]]
    passed = [subject for issuer, subject in REFUSED if not accepts(rules, issuer, subject) and accepts(open_rules, issuer, subject)]
    assert passed


def rules_of(variables: Variables) -> list[dict[str, str]]:
    found: list[dict[str, str]] = variables.console("local.oidc_rules")
    return found


def accepts(rules: Sequence[dict[str, str]], issuer: str, subject: str) -> bool:
    """Terraform's condition, on Terraform's rules."""
    asked = f"{ISSUERS[issuer].removeprefix('https://')} {subject}"
    rule = next(each for each in rules if re.search(each["of"], asked))
    return re.search(rule["subject"], subject) is not None


@pytest.fixture(scope="module")
def rules(variables: Variables) -> list[dict[str, str]]:
    found = rules_of(variables)
    for issuer, subject in ACCEPTED:
        assert accepts(found, issuer, subject)
    for issuer, subject in REFUSED:
        if subject.strip() == subject and "$" not in subject and subject:
            assert not accepts(found, issuer, subject)
    return found


# What an issuer's own words say about whose token it is, read from a whole subject without regard to Terraform's patterns.
OWNER_KEYS = (
    "repo",
    "repository",
    "workflow_ref",
    "enterprise",
    "enterprise_id",
    "repository_id",
    "repository_owner",
    "repository_owner_id",
)


def owners(issuer: str, subject: str) -> list[str]:
    """The owners that a concrete subject may be taken to name: a stranger's token has none of those of the grant."""
    if re.match(r"[a-z]+://", subject):
        return ["/".join(subject.split("/")[:3])]
    if subject.startswith("{"):
        return [subject.split(":")[0]]
    if subject.startswith("org/"):
        return ["/".join(subject.split("/")[:2])]
    if subject.startswith("system:"):
        return [":".join(subject.split(":")[:3])]
    parts = subject.split(":")
    if parts[0] in ("organization", "owner"):
        return [":".join(parts[:2])]
    if parts[0] == "project_path":
        return [parts[1].split("/")[0]] if len(parts) > 1 else []
    if not issuer.startswith(("gi", "gh", "enterprise")) and parts[0] not in (*OWNER_KEYS, "job_workflow_ref"):
        return [":".join(re.split("[:/]+", subject)[:2])]
    pairs = list(zip(parts[::2], parts[1::2], strict=False))
    return [f"{key}:{value.split('/')[0]}" for key, value in pairs if key in OWNER_KEYS] or [":".join(parts[:2])]


FILLINGS = ("", "x", "-evil", "evil/x", ":x", "evil:repository_owner:acme", "/", "@evil.example", "acme", ":serviceaccount:x", "://evil/")


def assert_owner_is_fixed(issuer: str, subject: str) -> None:
    """The owner is complete before the first wildcard, and stays what it is whatever stands in the wildcards."""
    literal = re.split(r"[*?]", subject)[0]
    for text in FILLINGS:
        concrete = re.sub(r"[*?]", lambda _, text=text: text, subject)  # type: ignore[misc]
        assert owners(issuer, concrete)[:1] == owners(issuer, literal)[:1], (issuer, subject, concrete)


@pytest.mark.attack("oidc")
@pytest.mark.parametrize("how", ["cut", "insert", "replace", "question mark"])
def test_a_wildcard_at_any_place_of_any_subject_keeps_the_owner(rules: list[dict[str, str]], how: str) -> None:
    tried = 0
    for issuer, subject in [*ACCEPTED, *REFUSED]:
        for place in range(len(subject) + 1):
            rest = {
                "cut": "*",
                "insert": f"*{subject[place:]}",
                "replace": f"*{subject[place + 1 :]}",
                "question mark": f"?{subject[place + 1 :]}",
            }
            changed = subject[:place] + rest[how]
            for other in {issuer, "unknown"}:
                if "$" not in changed and accepts(rules, other, changed):
                    tried += 1
                    assert_owner_is_fixed(other, changed)
    assert tried > 500


words = st.sampled_from(
    [
        *(
            "repo",
            "repository_owner",
            "repository_id",
            "job_workflow_ref",
            "workflow_ref",
            "environment",
            "ref",
            "project_path",
            "organization",
        ),
        *(
            "owner",
            "system",
            "serviceaccount",
            "org",
            "sc",
            "tenant",
            "acme",
            "acme-evil",
            "acm",
            "7",
            "*",
            "?",
            "a*",
            "acme*",
            UUID,
            "x@1",
            "refs",
        ),
    ]
)
subjects = st.lists(st.tuples(words, st.sampled_from([":", ":", "/", "|", "@", "://", ""])), min_size=1, max_size=7).map(
    lambda parts: "".join(f"{word}{end}" for word, end in parts)
)


@bounded(400)
@given(issuer=st.sampled_from(sorted(ISSUERS)), subject=subjects)
def test_no_accepted_subject_matches_a_token_of_another_owner(rules: list[dict[str, str]], issuer: str, subject: str) -> None:
    if accepts(rules, issuer, subject) and re.search(r"[*?]", subject):
        assert_owner_is_fixed(issuer, subject)


def test_the_tables_are_large_enough() -> None:
    assert len(ACCEPTED) >= 50 and len(REFUSED) >= 80
