"""`python -m ingest run | retire | stdin | receipts | tidy | broker | provision | revoke`."""

import contextlib
import os
import sys
import time
from argparse import Namespace
from functools import partial

from contracts import settings
from contracts.logs import say
from contracts.registry import load_registry
from contracts.settings import SettingError
from ingest import embedded, receipts, retirement, status, stdin, tidy
from ingest.accounts import Accounts
from ingest.config import Config, from_environment, parser
from ingest.landing import Landing
from ingest.link import Link
from ingest.loop import Loop
from ingest.stop import Stop

WATCH_S = 1.0


def main(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    arguments = parser().parse_args(argv)
    config = from_environment(os.environ, arguments)
    if arguments.verb in ("provision", "revoke"):
        return account(config, arguments)
    if arguments.verb == "tidy":
        return tidy.run(config, arguments.dry_run)
    stop = Stop().on_signals()
    if arguments.verb == "broker":
        return serve(config, stop)
    if arguments.verb == "receipts":
        return receipts.run(config, stop)
    if arguments.verb == "retire" and not (config.layout.raw / config.instance).is_dir():
        raise SettingError(
            f"there is no instance {config.instance!r} in {config.layout.raw}: change --instance or --data"
        )
    with Landing(config.layout, config.instance) as landing:
        if arguments.verb == "stdin":
            return stdin.run(sys.stdin.fileno(), landing, stop)
        return land(config, Loop(config, Link(config, arguments.verb == "retire"), landing, stop), arguments.verb)


def land(config: Config, loop: Loop, verb: str) -> int:
    """Run an instance, or retire it."""
    with contextlib.ExitStack() as stack:
        if config.ingest_health is not None:
            stack.callback(status.serve(loop, config.ingest_health).close)
        return loop.run() if verb == "run" else retirement.run(loop)


def account(config: Config, arguments: Namespace) -> int:
    """Make credentials or take them away."""
    registry = partial(load_registry, config.registry or config.layout.registry)
    accounts = Accounts(config.folder or config.layout.broker, config.mqtt_host, registry, time.time_ns() // 1000)
    if arguments.verb == "provision":
        done = accounts.provision(arguments.names, arguments.gateway, arguments.certificate)
    else:
        done = accounts.revoke(arguments.names)
    print(f"lamplight: {done}", file=sys.stderr, flush=True)
    return 0


def serve(config: Config, stop: Stop) -> int:
    """Run the embedded broker until stopped, or until the process that started this one is gone."""
    parent = os.getppid()
    try:
        broker = embedded.start(config.mqtt_host, config.mqtt_port, config.mqtt311_port)
    except OSError as error:
        raise SettingError(
            f"the broker cannot listen on {config.mqtt_host} ({error}): change LAMPLIGHT_MQTT_PORT "
            f"({config.mqtt_port}) or LAMPLIGHT_MQTT311_PORT ({config.mqtt311_port})"
        ) from error
    try:
        say("broker", f"on {config.address} (MQTT 5) and {config.mqtt_host}:{config.mqtt311_port} (MQTT 3.1.1)")
        while not stop.wait(WATCH_S):
            if os.getppid() != parent:
                return 0
            if not broker.is_running and not stop.is_set:
                say("broker", "the embedded broker ended by itself", "error")
                return 1
    finally:
        broker.stop()
    return 0


if __name__ == "__main__":
    settings.run(main)
