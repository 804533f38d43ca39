"""The run report: one HTML file that says what became of a run, for whoever has to act on it.

Everything in it comes from the audit store: the run's record, the outcomes of its attempts, its nodes, and two artifacts, manifest.json
(who depends on whom, who owns what) and sources.json (how fresh). It makes no request, needs no script, and can be sent by mail.

    sources -> lineage -> findings -> charts, pieces -> failures, particulars -> page
"""

from dbt_runner.report.findings import Findings, find
from dbt_runner.report.page import is_of, render
from dbt_runner.report.sources import Freshness, Sources, from_attempt, from_folder, from_store

# The report of a run that was published when it ended lies beside the artifacts of its steps.
FILE = "report.html"

__all__ = ["FILE", "Findings", "Freshness", "Sources", "find", "from_attempt", "from_folder", "from_store", "is_of", "render"]
