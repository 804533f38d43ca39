"""Every rule can fail: each single fault in a good definition is found by the check that is there for it."""

from __future__ import annotations

import pytest

from asl import rules
from asl.mutants.faults import FAULTS, PARTITION, PROMISE, Fault, good


def test_good_definition_passes() -> None:
    assert [str(finding) for finding in rules.check(good(), PROMISE, PARTITION)] == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found_by_its_check(fault: Fault) -> None:
    definition = good()
    fault.plant(definition)
    assert definition != good()
    findings = rules.check(definition, PROMISE, PARTITION)
    assert [finding for finding in findings if finding.rule == fault.rule and finding.where.startswith(fault.where)], [
        str(finding) for finding in findings
    ]


def test_every_check_has_a_fault() -> None:
    assert {fault.rule for fault in FAULTS} == {"schema", *(rule.__name__ for rule in rules.RULES)}
