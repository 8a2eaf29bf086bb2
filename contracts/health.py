"""`/metrics` in Prometheus' text format and `/health` of a running stage, where an address is given for them.

Served by a thread of its own, so that a stage which hangs is still seen to hang.
"""

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from contracts.settings import SettingError, port

# (whether all is well, what to say of it)
Check = Callable[[], tuple[bool, Mapping[str, int | float | str | None]]]


def parse_address(text: str) -> tuple[str, int]:
    """PORT or HOST:PORT as (host, port); a port alone is on the loopback interface. Raises ValueError."""
    host, colon, number = text.rpartition(":")
    return (host.strip("[]") if colon else "127.0.0.1"), port(number)


class Health:
    """Serves until closed. Raises SettingError that names `variable` when the address cannot be used."""

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, check: Check, variable: str):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif path == "/health":
                    is_well, said = check()
                    content = {"status": "ok" if is_well else "failing", **said}
                    self._answer(200 if is_well else 503, "application/json", json.dumps(content).encode() + b"\n")
                else:
                    self._answer(404, "text/plain; charset=utf-8", b"/metrics and /health are here\n")

            def _answer(self, code: int, kind: str, content: bytes) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Nothing: a scrape each few seconds is no news."""

        try:
            self._server = ThreadingHTTPServer(address, Handler)
        except OSError as error:
            raise SettingError(
                f"{address[0]}:{address[1]} cannot be used ({error.strerror}): change {variable}"
            ) from None
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True, name="health").start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
