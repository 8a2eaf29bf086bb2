"""Settings of the demo."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts import settings
from contracts.health import parse_address

# where each stage says how it is, on the loopback interface, unless told otherwise
HEALTH = {"LAMPLIGHT_INGEST_HEALTH": 9101, "LAMPLIGHT_RECEIPTS_HEALTH": 9102, "LAMPLIGHT_PIPELINES_HEALTH": 9103}


@dataclass(frozen=True, kw_only=True)
class Config:
    """`seconds` is None when a person will stop the demo; `patience_s` is how long stages wait for the broker.

    `health`: host and port per variable that sets them.
    """

    root: Path
    mqtt_host: str
    mqtt_port: int
    api_host: str
    api_port: int
    health: dict[str, tuple[str, int]]
    seconds: float | None
    patience_s: float

    @property
    def api_url(self) -> str:
        return f"http://{self.api_host}:{self.api_port}"

    @staticmethod
    def from_environment(environ: Mapping[str, str], seconds: float | None) -> "Config":
        """Settings as given; raises SettingError that names the variable to change."""
        return Config(
            root=settings.read(environ, "LAMPLIGHT_DATA", Path("var/demo"), Path).absolute(),
            mqtt_host=environ.get("LAMPLIGHT_MQTT_HOST") or "127.0.0.1",
            mqtt_port=settings.read(environ, "LAMPLIGHT_MQTT_PORT", 1883, settings.port),
            api_host=environ.get("LAMPLIGHT_API_HOST") or "127.0.0.1",
            api_port=settings.read(environ, "LAMPLIGHT_API_PORT", 8080, settings.port),
            health={
                variable: settings.read(environ, variable, ("127.0.0.1", port), parse_address)
                for variable, port in HEALTH.items()
            },
            patience_s=settings.read(environ, "LAMPLIGHT_DEMO_PATIENCE_S", 30.0, settings.positive),
            seconds=seconds or settings.read(environ, "LAMPLIGHT_DEMO_SECONDS", None, settings.positive),
        )

    def environment(self) -> dict[str, str]:
        """What the stages inherit: the same settings, this environment's Python first, no buffering."""
        environment = dict(os.environ)
        environment.update(
            LAMPLIGHT_DATA=str(self.root),
            LAMPLIGHT_MQTT_HOST=self.mqtt_host,
            LAMPLIGHT_MQTT_PORT=str(self.mqtt_port),
            LAMPLIGHT_API_HOST=self.api_host,
            LAMPLIGHT_API_PORT=str(self.api_port),
            **{variable: f"{host}:{port}" for variable, (host, port) in self.health.items()},
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}",
            PYTHONUNBUFFERED="1",
        )
        if self.seconds is not None:
            environment["LAMPLIGHT_DEMO_SECONDS"] = str(self.seconds)
        return environment
