"""`python -m tests.terraform.validate`: terraform validate of the root, every module and every example, on a copy of the checkout."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .tool import Terraform, configurations, copy_checkout, environment


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        checkout = copy_checkout(Path(scratch) / "checkout")
        terraform = Terraform(environment(Path(scratch)))
        for folder in configurations():
            try:
                terraform.validate(checkout / folder)
            except AssertionError as exc:
                print(exc, file=sys.stderr)
                return 1
            print(f"terraform validate: {folder} is valid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
