"""Catalogues of earlier states of the lake, and of a lake that lies elsewhere.

The housekeeping of the pipelines pins a state each hour and keeps it: `lake/pins/{moment}/` holds hard links to the
Parquet files that each table had, and the positions of that moment. A pin is whole or absent.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from contracts.layout import Layout, Positions
from contracts.schemas import TABLES
from contracts.settings import SettingError
from warehouse.catalogue import Source

MOMENT = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, order=True)
class Pin:
    """A kept state of the lake: all that was stored by `moment`."""

    moment: datetime
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def source(self, layout: Layout) -> Source:
        """What the pin holds. Raises SettingError when it was removed meanwhile."""
        try:
            if not (self.folder / "positions.json").exists():
                raise FileNotFoundError(self.folder)
            return Source(
                positions=Positions.load(self.folder / "positions.json"),
                files={name: _parquet_files(layout, self.folder / name) for name in TABLES},
                is_past=True,
            )
        except OSError as error:
            raise SettingError(f"pin {self.name} was removed meanwhile: ask again") from error


def _parquet_files(layout: Layout, folder: Path) -> list[str]:
    if not folder.exists():
        return []
    below = folder.relative_to(layout.root).as_posix()
    return sorted(f"/{below}/{name}" for name in os.listdir(folder) if name.endswith(".parquet"))


def pins(layout: Layout) -> list[Pin]:
    """The pins that there are, the oldest first."""
    found = []
    for folder in layout.pins.iterdir() if layout.pins.exists() else ():
        if (moment := _moment(folder.name)) is not None:
            found.append(Pin(moment, folder))
    return sorted(found)


def _moment(name: str) -> datetime | None:
    try:
        return datetime.strptime(name, MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return None


def pin_at(layout: Layout, moment: datetime) -> Pin:
    """The newest pin at or before a moment. Raises SettingError that lists the pins when none is old enough."""
    found = pins(layout)
    old_enough = [pin for pin in found if pin.moment <= moment]
    if old_enough:
        return old_enough[-1]
    listed = ", ".join(pin.name for pin in found) or "none: `pipelines run` makes one each hour"
    raise SettingError(f"no pin is as old as {moment.astimezone(UTC):{MOMENT}}; there are: {listed}")


def pinned_catalogue(layout: Layout, pin: Pin) -> Path:
    """Where the catalogue of a pin lies: beside today's."""
    return layout.catalogue.with_name(f"catalog.{pin.name}.duckdb")


def forget_unpinned(layout: Layout) -> None:
    """Remove catalogues whose pin is gone, as their files are."""
    kept = {pinned_catalogue(layout, pin) for pin in pins(layout)}
    for path in layout.root.glob("catalog.*.duckdb"):
        if _moment(path.name.split(".")[1]) is not None and path not in kept:
            path.unlink(missing_ok=True)
