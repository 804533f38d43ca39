"""`python -m dbt_runner`: the same as the console script `dbt-runner`."""

from dbt_runner.cli import main

main()
