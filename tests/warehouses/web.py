"""A web server of a test: 127.0.0.1, a port of the system's choice, a thread for each request, no log."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

Handler = Callable[[Request], Response]


@contextlib.contextmanager
def serving(handle: Handler) -> Iterator[str]:
    """Serves for as long as the context lasts; yields the server's URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, Request.application(handle), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
