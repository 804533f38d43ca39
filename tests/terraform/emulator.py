"""A patched moto on a free port of 127.0.0.1, as a process of its own: neither its patches nor its state touch the tests' process.

Prints its port when it listens and ends when its standard input is closed, that is with its parent at the latest.
"""

from __future__ import annotations

import logging
import sys

from dbt_runner.local.moto_patches import apply_all


def main() -> None:
    apply_all()
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    print(port, flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
