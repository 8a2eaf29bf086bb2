"""Settings of the warehouse."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contracts.layout import Layout
from contracts.settings import data_root, positive, read

POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Config:
    """`registry` is the lamppost registry, `districts` a GeoJSON file of the districts' boundaries, where there is one;
    `poll_s` is how often `publish --follow` looks for a new lake, seconds."""

    root: Path
    registry: Path
    districts: Path | None
    poll_s: float

    @property
    def layout(self) -> Layout:
        return Layout(self.root)

    @staticmethod
    def build(environ: Mapping[str, str], root: Path | None = None) -> "Config":
        """From LAMPLIGHT_DATA, LAMPLIGHT_REGISTRY, LAMPLIGHT_DISTRICTS and LAMPLIGHT_CATALOGUE_POLL_S; raises
        SettingError."""
        root = root or data_root(environ)
        return Config(
            root=root,
            registry=read(environ, "LAMPLIGHT_REGISTRY", Layout(root).registry, Path),
            districts=read(environ, "LAMPLIGHT_DISTRICTS", None, Path),
            poll_s=read(environ, "LAMPLIGHT_CATALOGUE_POLL_S", POLL_S, positive),
        )
