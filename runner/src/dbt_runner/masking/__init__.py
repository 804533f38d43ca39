"""Keeps secret values out of everything that the runner writes: log, node results, outcomes and artifacts.

The code that obtains a secret adds it to the mask before any other code sees the value. Text of the worker, of dbt and of the warehouse
passes the mask before it is cut, stored or printed.

The mask searches by meaning. It decodes a text into views (`views`), reduces each view and each secret to the characters that all
encodings keep (`needles`), and looks for one in the other. `residues` tells what a cut leaves of an escape, and `pieces` what of a secret
is secret by itself. The package imports nothing else of the runner.
"""

from dbt_runner.masking.mask import MASK, SHORTEST, Mask, too_short

__all__ = ["MASK", "SHORTEST", "Mask", "too_short"]
