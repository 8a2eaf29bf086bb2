"""Settings of ingest, from the environment and the command line."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts import settings
from contracts.layout import Layout

_INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """`instance` names the raw log that is written and the MQTT session that feeds it: one living process each."""

    root: Path
    instance: str
    mqtt_host: str
    mqtt_port: int
    mqtt311_port: int

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def address(self) -> str:
        return f"{self.mqtt_host}:{self.mqtt_port}"

    @property
    def client_id(self) -> str:
        return f"lamplight-ingest-{self.instance}"


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m ingest`."""
    top = argparse.ArgumentParser(prog="python -m ingest", description="Make what arrives durable, then thank for it.")
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="land what the broker has, until stopped")
    stdin = verbs.add_parser("stdin", help="land messages given as NDJSON on standard input")
    broker = verbs.add_parser("broker", help="run the embedded broker of the demo (in memory, no passwords)")
    for verb in (run, stdin):
        verb.add_argument("--data", type=Path, help="data root (LAMPLIGHT_DATA, var)")
        verb.add_argument("--instance", help="name of the raw log (LAMPLIGHT_INGEST_INSTANCE, a)")
    for verb in (run, broker):
        verb.add_argument("--mqtt-host", help="(LAMPLIGHT_MQTT_HOST, 127.0.0.1)")
        verb.add_argument("--mqtt-port", help="MQTT 5 (LAMPLIGHT_MQTT_PORT, 1883)")
    broker.add_argument("--mqtt311-port", help="MQTT 3.1.1 (LAMPLIGHT_MQTT311_PORT, the port after the other)")
    return top


def _instance(text: str) -> str:
    if not _INSTANCE.fullmatch(text):
        raise ValueError("1 to 64 letters, digits, - or _ are needed")
    return text


def from_environment(environ: Mapping[str, str], arguments: argparse.Namespace) -> Config:
    """Settings as given, options before variables; raises SettingError that names what to change."""
    options = {
        "LAMPLIGHT_DATA": "data",
        "LAMPLIGHT_INGEST_INSTANCE": "instance",
        "LAMPLIGHT_MQTT_HOST": "mqtt_host",
        "LAMPLIGHT_MQTT_PORT": "mqtt_port",
        "LAMPLIGHT_MQTT311_PORT": "mqtt311_port",
    }
    given = dict(environ)
    for variable, option in options.items():
        value = getattr(arguments, option, None)
        if value is not None:
            given[variable] = str(value)
    port = settings.read(given, "LAMPLIGHT_MQTT_PORT", 1883, settings.port)
    return Config(
        root=settings.data_root(given),
        instance=settings.read(given, "LAMPLIGHT_INGEST_INSTANCE", "a", _instance),
        mqtt_host=given.get("LAMPLIGHT_MQTT_HOST") or "127.0.0.1",
        mqtt_port=port,
        mqtt311_port=settings.read(given, "LAMPLIGHT_MQTT311_PORT", min(port + 1, 65535), settings.port),
    )
