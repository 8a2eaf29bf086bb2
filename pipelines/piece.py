"""A piece of housekeeping: one commit to one table, or the like, with what is to be said of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines import durability, lake


@dataclass(frozen=True, kw_only=True)
class Piece:
    """`kind` is one of join, remove, vacuum, pin and unpin; `rows`, `files` and bytes (`size`) are what it takes up,
    `names` the files of the table that it puts others in place of."""

    kind: str
    table: str
    what: str
    rows: int
    files: int
    size: int
    work: Callable[[], None]
    names: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        rows = f"{self.rows:,} rows, " if self.kind in ("join", "remove") else ""
        return f"{self.kind} {self.table} {self.what}: {rows}{self.files:,} files, {self.size / 1e6:,.1f} MB"


def durably(root: Path, name: str, work: Callable[[], None]) -> None:
    """Commit to a table, and make it durable here rather than in the tick that claims it."""
    before = lake.newest_version(root, name).version
    work()
    durability.make_durable(root, {name: before}, {name: lake.newest_version(root, name).version})
