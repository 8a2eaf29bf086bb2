"""Noised releases, written once (law 7): figures, and what they cost, in one SQLite transaction.

A crash before the commit leaves nothing, and nobody saw the noise. A crash after it leaves the figures, which are
then published again as they are. Triggers forbid to change or delete a row.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from contracts.layout import make_folder
from contracts.settings import SettingError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS release (
    product TEXT NOT NULL, window_start INTEGER NOT NULL, period_s INTEGER NOT NULL, released_at INTEGER NOT NULL,
    sigma REAL NOT NULL, threshold INTEGER NOT NULL, rho REAL NOT NULL, is_late INTEGER NOT NULL,
    coverage REAL NOT NULL, registry_version INTEGER NOT NULL,
    PRIMARY KEY (product, window_start)) STRICT;
CREATE TABLE IF NOT EXISTS release_cell (
    product TEXT NOT NULL, window_start INTEGER NOT NULL, post_id TEXT NOT NULL, direction TEXT NOT NULL,
    noised INTEGER NOT NULL, completeness REAL NOT NULL,
    PRIMARY KEY (product, window_start, post_id, direction)) STRICT;
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY, product TEXT NOT NULL, window_start INTEGER NOT NULL, unit TEXT NOT NULL,
    rho REAL NOT NULL, UNIQUE (product, window_start)) STRICT;
"""
_TABLES = ("release", "release_cell", "ledger")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure of a release; `noised` is as drawn, whether it will be shown or not."""

    post_id: str
    direction: str
    noised: int
    completeness: float


@dataclass(frozen=True, kw_only=True)
class Release:
    """One window as drawn; times are microseconds since 1970."""

    product: str
    window_start_us: int
    period_s: int
    released_at_us: int
    sigma: float
    threshold: int
    rho: float
    is_late: bool
    coverage: float
    registry_version: int
    cells: tuple[Cell, ...]


class Store:
    """The write-once store. Raises SettingError when its file cannot be opened."""

    def __init__(self, path: Path):
        try:
            make_folder(path.parent)
            self.db = sqlite3.connect(path, isolation_level=None)
            # FULL does not make the end of the rollback journal durable: a power cut soon after a commit brings the
            # journal back, which undoes the release, and it would be drawn again after it was seen
            self.db.execute("PRAGMA synchronous = EXTRA")
            self.db.executescript(_SCHEMA + "".join(map(_forbid, _TABLES)))
        except (OSError, sqlite3.Error) as error:
            raise SettingError(f"release store {path} cannot be used: {error}") from error

    def windows(self, product: str) -> set[int]:
        """Windows that were drawn, by their start in microseconds."""
        rows = self.db.execute("SELECT window_start FROM release WHERE product = ?", (product,))
        return {row[0] for row in rows}

    def newest(self, product: str) -> int | None:
        """Start of the newest window that was drawn."""
        row = self.db.execute("SELECT max(window_start) FROM release WHERE product = ?", (product,)).fetchone()
        newest: int | None = row[0]
        return newest

    def write(self, release: Release) -> bool:
        """Write a release and its charge; False, with nothing written, when the window was drawn before."""
        window = (release.product, release.window_start_us)
        self.db.execute("BEGIN IMMEDIATE")
        try:
            drawn = self.db.execute("SELECT 1 FROM release WHERE product = ? AND window_start = ?", window).fetchone()
            if drawn:
                self.db.execute("ROLLBACK")
                return False
            self.db.execute(
                "INSERT INTO release VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *window,
                    release.period_s,
                    release.released_at_us,
                    release.sigma,
                    release.threshold,
                    release.rho,
                    int(release.is_late),
                    release.coverage,
                    release.registry_version,
                ),
            )
            self.db.executemany(
                "INSERT INTO release_cell VALUES (?, ?, ?, ?, ?, ?)",
                [(*window, cell.post_id, cell.direction, cell.noised, cell.completeness) for cell in release.cells],
            )
            self.db.execute(
                "INSERT INTO ledger (product, window_start, unit, rho) VALUES (?, ?, 'passage', ?)",
                (*window, release.rho),
            )
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        return True

    def read(self, product: str, window_start_us: int) -> Release:
        """A release as it was drawn. Raises KeyError when the window was not."""
        window = (product, window_start_us)
        row = self.db.execute(
            "SELECT period_s, released_at, sigma, threshold, rho, is_late, coverage, registry_version"
            " FROM release WHERE product = ? AND window_start = ?",
            window,
        ).fetchone()
        if row is None:
            raise KeyError(window)
        cells = self.db.execute(
            "SELECT post_id, direction, noised, completeness FROM release_cell"
            " WHERE product = ? AND window_start = ? ORDER BY post_id, direction",
            window,
        )
        return Release(
            product=product,
            window_start_us=window_start_us,
            period_s=row[0],
            released_at_us=row[1],
            sigma=row[2],
            threshold=row[3],
            rho=row[4],
            is_late=bool(row[5]),
            coverage=row[6],
            registry_version=row[7],
            cells=tuple(
                Cell(post_id=cell[0], direction=cell[1], noised=cell[2], completeness=cell[3]) for cell in cells
            ),
        )


def _forbid(table: str) -> str:
    return "".join(
        f"CREATE TRIGGER IF NOT EXISTS {table}_{verb.lower()} BEFORE {verb} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, '{table} is written once'); END;"
        for verb in ("UPDATE", "DELETE")
    )
