"""`python -m demo [--seconds N]`: what `make demo` runs."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from shlex import quote

from contracts import settings
from contracts.layout import Layout
from contracts.settings import SettingError
from demo import watch
from demo.config import Config

MARK = ".made-by-demo"


def main(argv: list[str]) -> int:
    """Run one verb; the exit code."""
    top = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    top.add_argument("--seconds", type=settings.positive, help="stop after so long, check, and print a summary")
    verbs = top.add_subparsers(dest="verb")
    verbs.add_parser("watch", help="say how far every stage is (part of the Procfile)")
    for verb, event in (("after-broker", "the broker listens"), ("after-ingest", "ingest has subscribed")):
        after = verbs.add_parser(verb, help=f"run a command once {event} (part of the Procfile)")
        after.add_argument("command", nargs=argparse.REMAINDER)
    arguments = top.parse_args(argv)
    config = Config.from_environment(os.environ, arguments.seconds)
    if arguments.verb == "watch":
        return watch.run(config)
    if arguments.verb in {"after-broker", "after-ingest"}:
        wait_for_broker(config, config.patience_s)
        if arguments.verb == "after-ingest":
            wait_for_ingest(config, config.patience_s)
        os.execvp(arguments.command[0], arguments.command)
    return start(config)


def start(config: Config) -> int:
    """Prepare an empty data root and the registry, then become honcho."""
    _need_free(config.mqtt_host, config.mqtt_port, "LAMPLIGHT_MQTT_PORT")
    _need_free(config.api_host, config.api_port, "LAMPLIGHT_API_PORT")
    for variable, (host, port) in config.health.items():
        _need_free(host, port, variable)
    _empty(config.root)
    environment = config.environment()
    subprocess.run([sys.executable, "-m", "sensors_sim", "fleet"], check=True, env=environment)
    folder = quote(str(config.root))
    print(
        f"""
Lamplight: about 400 simulated lampposts of four districts of Hong Kong, live.

  open feeds    {config.api_url}/            (weather, air and traffic; JSON, GeoJSON, CSV, Parquet)
  analysts      LAMPLIGHT_DATA={folder} .venv/bin/python -m warehouse sql "SELECT * FROM windows LIMIT 10"
  devices       mqtt://{config.mqtt_host}:{config.mqtt_port}   topics lamplight/v1/{{post_id}}/{{stream}}
  health        {"  ".join(f"http://{host}:{port}/health" for host, port in config.health.values())}
                (ingest, receipts, pipelines; /metrics beside each)
  files         {config.root}

Posts begin with 75 minutes of stored readings, as after an outage, so the feeds fill within a minute or two.
"""
        + ("Ctrl-C stops all." if config.seconds is None else f"Stops by itself after {config.seconds:g} s."),
        flush=True,
    )
    os.execvpe("honcho", ["honcho", "start"], environment)


def wait_for_broker(config: Config, patience_s: float) -> None:
    """Return when the broker accepts connections. Raises SettingError after `patience_s`."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        try:
            socket.create_connection((config.mqtt_host, config.mqtt_port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SettingError(
        f"no broker at {config.mqtt_host}:{config.mqtt_port} after {patience_s:g} s: change LAMPLIGHT_MQTT_PORT"
    )


def wait_for_ingest(config: Config, patience_s: float) -> None:
    """Return when ingest has subscribed: what is published before that, nobody keeps. The data root began empty, so
    its progress file is this run's. Raises SettingError after `patience_s`."""
    until = time.monotonic() + patience_s
    while not Layout(config.root).progress("ingest").exists():
        if time.monotonic() >= until:
            raise SettingError(f"ingest did not subscribe within {patience_s:g} s: look at what it says above")
        time.sleep(0.1)


def _need_free(host: str, port: int, variable: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingError(f"port {port} on {host} cannot be used ({error.strerror}): change {variable}") from None


def _empty(root: Path) -> None:
    """An empty data root. Only a folder that an earlier demo made is cleared."""
    mark = root / MARK
    if root.exists() and any(root.iterdir()):
        if not mark.exists():
            raise SettingError(f"folder {root} holds files that no demo made: change LAMPLIGHT_DATA or move them away")
        print(f"lamplight: the data of the demo before, in {root}, is cleared (LAMPLIGHT_DATA=FOLDER keeps it)")
        shutil.rmtree(root)
    settings.writable_folder(root)
    mark.touch()
    Layout(root).open.mkdir()


if __name__ == "__main__":
    settings.run(main)
