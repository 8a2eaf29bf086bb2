"""The latest value of every post and quantity: a function of the files of one version of HOURS.

A file of the lake never changes, so what it says is read once and kept; a publish only merges what its files say. So
compaction, late data and retention need no code: they change the list of files. Hours hold it all: the last value
used, its time, and the time of the newest value, used or not.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from contracts.quantities import QUANTITIES
from warehouse.reference import LATEST, ReferenceTable

_READ = ["post_id", "quantity", "last_value", "last_used_time", "last_event_time"]
_CELL = ["post_id", "quantity"]
_TEXTS: dict[str, pl.DataType] = {"post_id": pl.String(), "quantity": pl.String()}
_NEVER = np.iinfo(np.int64).min
_QUANTITIES = pl.DataFrame(
    {
        "quantity": list(QUANTITIES),
        "stream": [row.stream for row in QUANTITIES.values()],
        "unit": [row.unit for row in QUANTITIES.values()],
    }
)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Said:
    """What one file says of the cells (post and quantity) that it knows, by their numbers. Times are microseconds since
    1970; `used_us` is _NEVER where no value was used."""

    cells: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    used_us: npt.NDArray[np.int64]
    newest_us: npt.NDArray[np.int64]


class Latest:
    """What files of HOURS say of latest values, kept by path."""

    def __init__(self) -> None:
        self._cells = pl.DataFrame(schema=_TEXTS | {"cell": pl.Int64})
        self._said: dict[str, _Said] = {}

    def of(self, paths: list[str]) -> ReferenceTable:
        """The latest values that these files hold together, in any order. Files not seen before are read; those that
        are no longer asked for are forgotten."""
        self._said = {path: self._said.get(path) or self._read(path) for path in paths}
        values = np.full(self._cells.height, np.nan)
        used_us, newest_us = (np.full(self._cells.height, _NEVER) for _ in range(2))
        for said in self._said.values():
            # a cell stands once in a file, so plain indexing will do
            is_later = said.used_us > used_us[said.cells]
            later = said.cells[is_later]
            values[later], used_us[later] = said.values[is_later], said.used_us[is_later]
            newest_us[said.cells] = np.maximum(newest_us[said.cells], said.newest_us)
        rows = (
            self._cells.with_columns(value=pl.Series(values), event_time=_times(used_us), newest_time=_times(newest_us))
            .filter(pl.col("newest_time").is_not_null())
            .with_columns(value=pl.when(pl.col("event_time").is_not_null()).then(pl.col("value")))
            .join(_QUANTITIES, on="quantity", how="left")
            .sort(_CELL)
        )
        return ReferenceTable(name="latest", rows=rows.select(LATEST.names).to_arrow().cast(LATEST))

    def _read(self, path: str) -> _Said:
        used = pl.when(pl.col("last_value").is_not_null()).then(pl.coalesce("last_used_time", "last_event_time"))
        rows = (
            pl.read_parquet(path, columns=_READ, hive_partitioning=False)
            .with_columns(used=used.dt.epoch("us").fill_null(_NEVER))
            .group_by(_CELL)
            .agg(
                pl.col("last_value").get(pl.col("used").arg_max()),
                pl.col("used").max(),
                newest=pl.col("last_event_time").max().dt.epoch("us"),
            )
        )
        new = rows.select(_CELL).join(self._cells, on=_CELL, how="anti")
        numbers = pl.int_range(self._cells.height, self._cells.height + new.height, eager=True)
        self._cells = self._cells.vstack(new.with_columns(cell=numbers))
        numbered = rows.select(_CELL).join(self._cells, on=_CELL, how="left", maintain_order="left")
        return _Said(
            cells=numbered["cell"].to_numpy(),
            values=rows["last_value"].fill_null(np.nan).to_numpy(),
            used_us=rows["used"].to_numpy(),
            newest_us=rows["newest"].to_numpy(),
        )


def _times(moments_us: npt.NDArray[np.int64]) -> pl.Series:
    moments = pl.Series(moments_us)
    return moments.set(moments == _NEVER, None).cast(pl.Datetime("us", "UTC"))
