"""The central dbt runner: runs one step of a dbt run and leaves its audit trail.

The order of a run is the order of the modules: request, release, identity, profile, worker, events, outcome, audit.
Each imports only what stands before it. `attempt` puts them together for the container, `cli` is for people, `local` is the
embedded AWS.
"""

__version__ = "0.1.0"
