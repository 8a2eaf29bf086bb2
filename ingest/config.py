"""Settings of ingest, from the environment and the command line."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from contracts import settings
from contracts.credentials import Credentials
from contracts.health import parse_address
from contracts.layout import Layout
from contracts.retention import RAW_DAYS

FIRST = "a"
_INSTANCE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """`instance` names the raw log that is written and the MQTT session that feeds it: one living process each.

    `is_shared`: instances share one subscription, each message going to one of them; the embedded broker cannot.
    `disk_grace_s`: how long the disk may refuse commits before ingest gives up. `registry` and `folder` (the production
    broker's) are None for the places below the data root.
    """

    root: Path
    instance: str
    mqtt_host: str
    mqtt_port: int
    mqtt311_port: int
    credentials: Credentials = field(default_factory=Credentials)
    registry: Path | None = None
    folder: Path | None = None
    is_shared: bool = True
    disk_grace_s: float = 300.0
    ingest_health: tuple[str, int] | None = None
    receipts_health: tuple[str, int] | None = None
    retention_days: float = RAW_DAYS

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @property
    def address(self) -> str:
        return f"{self.mqtt_host}:{self.mqtt_port}"

    @property
    def progress(self) -> Path:
        """The first instance says how far it is as `ingest`, which is what a single one is asked for."""
        return self.layout.progress("ingest" if self.instance == FIRST else f"ingest-{self.instance}")

    @property
    def client_id(self) -> str:
        return f"lamplight-ingest-{self.instance}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise settings.SettingError(f"{self.prog}: {message}")


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m ingest`."""
    top = _Parser(prog="python -m ingest", description="Make what arrives durable, then thank for it.")
    verbs = top.add_subparsers(dest="verb", required=True, parser_class=_Parser)
    run = verbs.add_parser("run", help="land what the broker has, until stopped")
    retire = verbs.add_parser("retire", help="give an instance up: land what its session still holds, then end it")
    stdin = verbs.add_parser("stdin", help="land messages given as NDJSON on standard input")
    receipts = verbs.add_parser("receipts", help="tell posts which of their messages are durable, until stopped")
    tidy = verbs.add_parser("tidy", help="merge old segments, remove those past their retention")
    tidy.add_argument("--dry-run", action="store_true", help="say what would go and change nothing")
    broker = verbs.add_parser("broker", help="run the embedded broker of the demo (in memory, no passwords)")
    provision = verbs.add_parser("provision", help="make credentials of the production broker")
    revoke = verbs.add_parser("revoke", help="take credentials of the production broker away")
    for verb in (run, retire, stdin, receipts, tidy, provision, revoke):
        verb.add_argument("--data", type=Path, help="data root (LAMPLIGHT_DATA, var)")
    for verb in (run, retire, stdin):
        verb.add_argument("--instance", help="name of the raw log (LAMPLIGHT_INGEST_INSTANCE, a)")
    for verb in (run, retire):
        verb.add_argument("--health", dest="ingest_health", metavar="ADDRESS", help="(LAMPLIGHT_INGEST_HEALTH)")
        verb.add_argument("--subscription", help="shared or plain (LAMPLIGHT_INGEST_SUBSCRIPTION, shared)")
    receipts.add_argument("--health", dest="receipts_health", metavar="ADDRESS", help="(LAMPLIGHT_RECEIPTS_HEALTH)")
    for verb in (run, retire, receipts, broker):
        verb.add_argument("--mqtt-host", help="(LAMPLIGHT_MQTT_HOST, 127.0.0.1)")
        verb.add_argument("--mqtt-port", help="MQTT 5 (LAMPLIGHT_MQTT_PORT, 1883)")
    posts = "post id, ingest-INSTANCE or receipts"
    provision.add_argument("names", nargs="*", metavar="POST", help=posts)
    provision.add_argument("--gateway", action="append", default=[], metavar="GW0001", help="its posts: the registry's")
    kind = provision.add_mutually_exclusive_group()
    kind.add_argument("--password", action="store_true", help="name and password (the default)")
    kind.add_argument("--certificate", action="store_true", help="client certificate with the name as CN")
    provision.add_argument("--mqtt-host", help="what clients call the broker (LAMPLIGHT_MQTT_HOST, 127.0.0.1)")
    revoke.add_argument("names", nargs="+", metavar="POST", help=posts + ", or gateway id")
    for verb in (provision, revoke):
        verb.add_argument("--folder", type=Path, help="the broker's folder (broker below the data root)")
    broker.add_argument("--mqtt311-port", help="MQTT 3.1.1 (LAMPLIGHT_MQTT311_PORT, the port after the other)")
    return top


def _instance(text: str) -> str:
    if not _INSTANCE.fullmatch(text):
        raise ValueError("1 to 64 letters, digits, - or _ are needed")
    return text


def _is_shared(text: str) -> bool:
    if text not in ("shared", "plain"):
        raise ValueError("shared or plain is needed")
    return text == "shared"


def from_environment(environ: Mapping[str, str], arguments: argparse.Namespace) -> Config:
    """Settings as given, options before variables; raises SettingError that names what to change."""
    options = {
        "LAMPLIGHT_DATA": "data",
        "LAMPLIGHT_INGEST_INSTANCE": "instance",
        "LAMPLIGHT_MQTT_HOST": "mqtt_host",
        "LAMPLIGHT_MQTT_PORT": "mqtt_port",
        "LAMPLIGHT_MQTT311_PORT": "mqtt311_port",
        "LAMPLIGHT_INGEST_HEALTH": "ingest_health",
        "LAMPLIGHT_INGEST_SUBSCRIPTION": "subscription",
        "LAMPLIGHT_RECEIPTS_HEALTH": "receipts_health",
    }
    given = dict(environ)
    for variable, option in options.items():
        value = getattr(arguments, option, None)
        if value is not None:
            given[variable] = str(value)
    port = settings.read(given, "LAMPLIGHT_MQTT_PORT", 1883, settings.port)
    return Config(
        root=settings.data_root(given),
        instance=settings.read(given, "LAMPLIGHT_INGEST_INSTANCE", FIRST, _instance),
        mqtt_host=given.get("LAMPLIGHT_MQTT_HOST") or "127.0.0.1",
        mqtt_port=port,
        mqtt311_port=settings.read(given, "LAMPLIGHT_MQTT311_PORT", min(port + 1, 65535), settings.port),
        credentials=Credentials.read(given),
        registry=settings.read(given, "LAMPLIGHT_REGISTRY", None, Path),
        folder=getattr(arguments, "folder", None),
        is_shared=settings.read(given, "LAMPLIGHT_INGEST_SUBSCRIPTION", True, _is_shared),
        disk_grace_s=settings.read(given, "LAMPLIGHT_DISK_GRACE_S", 300.0, settings.positive),
        ingest_health=settings.read(given, "LAMPLIGHT_INGEST_HEALTH", None, parse_address),
        receipts_health=settings.read(given, "LAMPLIGHT_RECEIPTS_HEALTH", None, parse_address),
        retention_days=settings.read(given, "LAMPLIGHT_RAW_RETENTION_DAYS", RAW_DAYS, settings.positive),
    )
