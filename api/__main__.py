"""python -m api run"""

import argparse
import os
import signal
import socket
from pathlib import Path

import uvicorn

from api.config import Config
from api.public import public_app
from contracts.settings import SettingError, port, run

GRACE_S = 3  # open requests may end within this


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api", description="The public API over open/.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    served = verbs.add_parser("run", help="serve until SIGTERM or SIGINT")
    served.add_argument("--data", type=Path, help="data root (LAMPLIGHT_DATA)")
    served.add_argument("--host", help="address to listen on (LAMPLIGHT_API_HOST)")
    served.add_argument("--port", type=port, help="port to listen on (LAMPLIGHT_API_PORT)")
    return parser


def listen(host: str, port_number: int) -> socket.socket:
    """A bound socket. Raises SettingError when the address is busy or not ours."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every answer waits 40 ms for an ACK
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port_number))
    except OSError as error:
        bound.close()
        raise SettingError(
            f"cannot listen on {host}:{port_number} ({error.strerror or error}): "
            "change LAMPLIGHT_API_PORT or LAMPLIGHT_API_HOST"
        ) from error
    return bound


def main(argv: list[str]) -> int:
    """Serve until a signal; raises SettingError."""
    options = _parser().parse_args(argv)
    config = Config.build(os.environ, root=options.data, host=options.host, port_number=options.port)
    bound = listen(config.host, config.port)
    settings = uvicorn.Config(
        public_app(config),
        access_log=False,
        log_level="warning",
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    # uvicorn stops on the first signal and then raises it again for the handlers that stood before: these say nothing
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    print(f"public API on http://{config.host}:{config.port}/", flush=True)
    uvicorn.Server(settings).run(sockets=[bound])
    return 0


if __name__ == "__main__":
    run(main)
