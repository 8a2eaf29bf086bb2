"""Settings of the public API."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.layout import Layout
from contracts.settings import data_root, port, positive, read

STALE_AFTER_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """`open_folder` is all that the public app reads; a feed generated more than `stale_after_s` ago is stale."""

    open_folder: Path
    host: str
    port: int
    stale_after_s: float

    @staticmethod
    def build(
        environ: Mapping[str, str],
        *,
        root: Path | None = None,
        host: str | None = None,
        port_number: int | None = None,
    ) -> "Config":
        """From LAMPLIGHT_DATA, LAMPLIGHT_API_HOST, LAMPLIGHT_API_PORT and LAMPLIGHT_API_STALE_AFTER_S, each overridden
        by its option; raises SettingError."""
        return Config(
            open_folder=Layout(data_root(environ, root)).open,
            host=host or read(environ, "LAMPLIGHT_API_HOST", "127.0.0.1", str),
            port=port_number or read(environ, "LAMPLIGHT_API_PORT", 8080, port),
            stale_after_s=read(environ, "LAMPLIGHT_API_STALE_AFTER_S", STALE_AFTER_S, positive),
        )
