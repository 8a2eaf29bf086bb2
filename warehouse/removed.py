"""What retention has removed, as a table of the catalogue: windows before it cannot be compared with their sources."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from contracts.fields import TIMESTAMP, field
from contracts.settings import SettingError
from contracts.times import from_us

REMOVED = pa.schema(
    [
        field("table_name", pa.string(), "", "Table of the lake."),
        field("stream", pa.string(), "", "Stream of the rows; empty where a row need not have one."),
        field("kept_from", TIMESTAMP, "UTC", "Rows of an earlier event time are gone, or about to go."),
        field("removed_before", TIMESTAMP, "UTC", "Rows of an earlier event time are gone; null: none yet.", True),
    ]
)


def removed_rows(path: Path) -> pa.Table:
    """From lake/removed.json; no rows while nothing was removed. Raises SettingError when the file is broken."""
    try:
        said = json.loads(path.read_bytes())
        bounds, done = said["bounds"], said["done"]
    except FileNotFoundError:
        return REMOVED.empty_table()
    except (OSError, ValueError, KeyError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error
    rows: list[dict[str, Any]] = [
        {
            "table_name": table,
            "stream": stream,
            "kept_from": from_us(bound),
            "removed_before": from_us(gone) if (gone := done.get(table, {}).get(stream)) else None,
        }
        for table, streams in sorted(bounds.items())
        for stream, bound in sorted(streams.items())
    ]
    return pa.Table.from_pylist(rows, REMOVED)
