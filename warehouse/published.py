"""The schema `open`: what left the house, read from `open/archive` where it was published and nowhere else.

The views read the archive when they are asked, not a list of its files: a month has 20,000 of them, which each
publishing would write into the catalogue anew. No archived file changes, and a day's manifest is replaced as a whole.
"""

from collections.abc import Collection
from pathlib import Path

import msgspec
import pyarrow as pa

from contracts.feeds import ARCHIVE, MANIFEST
from contracts.fields import TIMESTAMP, field
from contracts.products import PRODUCTS, Product
from contracts.settings import SettingError
from warehouse.views import View, column_comments, no_rows

SCHEMA = "open"
_FILES = pa.schema(
    [
        field("product", pa.string(), "", "Open data product."),
        field("date", pa.date32(), "", "UTC day that the window starts on: a folder, so that a filter on it is quick."),
        field("window_start", TIMESTAMP, "UTC", "Start of the window [start, end)."),
        field("window_end", TIMESTAMP, "UTC", "End of the window."),
        field("revision", pa.int32(), "1", "1 for what was published first; readings that came later made another."),
        field("is_current", pa.bool_(), "", "Whether no later revision of the window exists."),
        field("row_count", pa.int64(), "1", "Rows of the file, as its manifest says."),
        field("size_bytes", pa.int64(), "By", "Bytes of the file, as its manifest says."),
        field("sha256", pa.string(), "", "SHA-256 of the file, as its manifest says."),
        field("path", pa.string(), "", "File below open/archive/v1."),
    ]
)
_OWN = pa.schema([_FILES.field("date"), _FILES.field("revision")])
_DAYS = "hive_partitioning = true, hive_types = {'product': 'VARCHAR', 'date': 'DATE'}"
_MANIFEST_COLUMNS = (
    "{'files': 'STRUCT(path VARCHAR, bytes BIGINT, rows BIGINT, sha256 VARCHAR, window_start TIMESTAMPTZ, "
    "window_end TIMESTAMPTZ, revision INTEGER, is_current BOOLEAN)[]'}"
)


class _Day(msgspec.Struct):
    product: str


class _Index(msgspec.Struct):
    days: list[_Day]


def archived_products(open_folder: Path) -> frozenset[str]:
    """Products of which anything is in the archive. Raises SettingError when its index is broken."""
    path = open_folder / ARCHIVE / MANIFEST
    try:
        index = msgspec.json.decode(path.read_bytes(), type=_Index)
    except FileNotFoundError:
        return frozenset()
    except (OSError, msgspec.DecodeError) as error:
        raise SettingError(f"{path} cannot be read: {error}") from error
    return frozenset(day.product for day in index.days if day.product in PRODUCTS)


def published_views(archived: Collection[str]) -> list[View]:
    """`files`, and `published_{product}` with the values of each; of products that are not in the archive no rows."""
    return [_files(bool(archived)), *[_values(row, row.name in archived) for row in PRODUCTS.values()]]


def _files(is_there: bool) -> View:
    return View(
        schema=SCHEMA,
        name="files",
        meaning="Files of the open archive by its manifests, superseded revisions too; nothing of it ever changes.",
        grain="one product, window and revision",
        key="product, window_start, revision",
        body=_FILES_BODY if is_there else no_rows(_FILES),
        columns=column_comments(_FILES),
    )


_FILES_BODY = f"""SELECT
    product, date, file.window_start AS window_start, file.window_end AS window_end, file.revision AS revision,
    file.is_current AS is_current, file.rows AS row_count, file.bytes AS size_bytes, file.sha256 AS sha256,
    file.path AS path
FROM (
    SELECT product, date, unnest(files) AS file
    FROM read_json(lake.root() || '/open/{ARCHIVE}/*/*/{MANIFEST}', columns = {_MANIFEST_COLUMNS}, {_DAYS})
)"""


def _values(product: Product, is_there: bool) -> View:
    columns = ", ".join(f'archived."{name}" AS "{name}"' for name in product.schema.names)
    schema = pa.schema([*product.schema, *_OWN])
    body = f"""SELECT {columns}, archived.date AS date, revision
FROM read_parquet(
    lake.root() || '/open/{ARCHIVE}/product={product.name}/*/*.parquet', filename = true, {_DAYS}
) AS archived
JOIN (
    SELECT date, revision, parse_filename(path) AS name
    FROM ({_FILES_BODY})
    WHERE product = '{product.name}' AND is_current
) AS files ON files.date = archived.date AND name = parse_filename(filename)"""
    return View(
        schema=SCHEMA,
        name=f"published_{product.name}",
        meaning=f"{product.title}, exactly as published; the newest revision of each window. {product.description}",
        grain=f"one {', '.join(product.key)} and window",
        key=", ".join((*product.key, "window_start")),
        body=body if is_there else no_rows(schema),
        columns=column_comments(schema),
    )
