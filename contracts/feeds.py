"""Open feeds: their formats, their names and where they lie below `open/`, as the release writes and the API serves.

latest/{product}.{format}                     the newest window of each cell, replaced as a whole
lampposts.{geojson,csv}                       public facts of the posts
archive/v1/manifest.json                      index: one entry per product and day
archive/v1/product={p}/date={d}/manifest.json files of that day, every revision
archive/v1/product={p}/date={d}/{window}-{sha256[:16]}.parquet   never changed once written
feeds.json                                    discovery
"""

from datetime import UTC, datetime
from pathlib import PurePosixPath

FEED_VERSION = 1

# media types: RFC 7946, RFC 4180 and 7111, RFC 8259, IANA registration of Apache Parquet
FORMATS = {
    "geojson": "application/geo+json",
    "csv": "text/csv; charset=utf-8; header=present",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
LAMPPOST_FORMATS = ("geojson", "csv")
DISCOVERY = PurePosixPath("feeds.json")
ARCHIVE = PurePosixPath("archive/v1")
MANIFEST = "manifest.json"


def latest_path(product: str, extension: str) -> PurePosixPath:
    """A product's latest feed in one format."""
    return PurePosixPath("latest") / f"{product}.{extension}"


def lampposts_path(extension: str) -> PurePosixPath:
    """The posts' public facts in one format."""
    return PurePosixPath(f"lampposts.{extension}")


def archive_day(product: str, window_start: datetime) -> PurePosixPath:
    """Folder of a product's windows that start on one UTC day."""
    return ARCHIVE / f"product={product}" / f"date={window_start.astimezone(UTC):%Y-%m-%d}"


def archive_name(window_start: datetime, sha256: str) -> str:
    """File name of one archived window: its start (UTC) and the head of its content's digest."""
    return f"{window_start.astimezone(UTC):%Y%m%dT%H%M%SZ}-{sha256[:16]}.parquet"
