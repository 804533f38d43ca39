"""The embedded AWS (moto, patched) without resources, as a process of its own.

Prints its endpoint when it listens, and ends when its standard input is closed, that is with its parent at the latest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dbt_runner.local.emulator import Emulator


def main() -> None:
    home = Path(sys.argv[1])
    emulator = Emulator(home / "logs", writable=[home])
    emulator.start()
    print(emulator.endpoint, flush=True)
    sys.stdin.read()
    emulator.stop()


if __name__ == "__main__":
    main()
