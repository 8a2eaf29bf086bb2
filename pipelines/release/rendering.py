"""An open product's rows as bytes: GeoJSON, CSV, JSON and Parquet, with the same number in each.

Deny by default: a frame with any column that the product's schema does not name is refused.
"""

import io
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from contracts.feeds import FEED_VERSION
from contracts.products import ATTRIBUTION, LICENCE, Product
from contracts.times import isoformat

COORDINATE_DECIMALS = 6  # RFC 7946, section 11.2: six decimals are about 0.1 m
_COORDINATES = ("longitude", "latitude")
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%.fZ"
_ENCODER = msgspec.json.Encoder()


class NotPublic(Exception):
    """A frame that must not leave: a column that is not the product's, or a value that no format can say."""


@dataclass(frozen=True, kw_only=True)
class FeedMeta:
    """What a feed says about itself. `data_through` is the event time of the newest reading in it, `closed_through`
    the end of the newest window that is closed, `period_s` the length of its windows in seconds."""

    generated_at: datetime
    data_through: datetime | None
    closed_through: datetime | None
    period_s: int
    notes: tuple[str, ...] = ()


def conform(product: Product, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows in the product's column order and types, sorted by cell, coordinates rounded.

    Raises NotPublic for a column too many or too few, a null where none may be, or a number that is not finite.
    """
    names = product.schema.names
    if set(rows.columns) != set(names):
        extra, missing = sorted(set(rows.columns) - set(names)), sorted(set(names) - set(rows.columns))
        raise NotPublic(f"{product.name}: columns that are not the product's: {extra}; missing: {missing}")
    types = pl.from_arrow(product.schema.empty_table())
    assert isinstance(types, pl.DataFrame)
    frame = rows.select(
        pl.col(name).cast(kind).round(COORDINATE_DECIMALS) if name in _COORDINATES else pl.col(name).cast(kind)
        for name, kind in types.schema.items()
    ).sort([*product.key, "window_start"])
    required = [field.name for field in product.schema if not field.nullable]
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    faults = frame.select(
        *[pl.col(name).has_nulls().alias(f"null in {name}") for name in required],
        *[(~pl.col(name).is_finite()).any().alias(f"not finite: {name}") for name in floats],
    ).row(0, named=True)
    if any(faults.values()):
        raise NotPublic(f"{product.name}: {', '.join(name for name, is_true in faults.items() if is_true)}")
    return frame


def fields(product: Product) -> list[dict[str, str]]:
    """Name, unit and description of each field."""
    return [
        {
            "name": field.name,
            "unit": field.metadata[b"unit"].decode(),
            "description": field.metadata[b"description"].decode(),
        }
        for field in product.schema
    ]


def _said(moment: datetime | None) -> str | None:
    return None if moment is None else isoformat(moment)


def named(product: Product) -> dict[str, str]:
    """What a product's feeds and archive files begin with."""
    return {
        "product": product.name,
        "title": product.title,
        "description": product.description,
        "licence": LICENCE,
        "attribution": ATTRIBUTION,
    }


def about(product: Product, meta: FeedMeta) -> dict[str, Any]:
    """The metadata that stands at the top of JSON and GeoJSON and in the schema of Parquet."""
    return {
        **named(product),
        "generated_at": isoformat(meta.generated_at),
        "data_through": _said(meta.data_through),
        "closed_through": _said(meta.closed_through),
        "period_s": meta.period_s,
        "schema_version": FEED_VERSION,
        "is_noised": product.is_noised,
        "notes": list(meta.notes),
        "fields": fields(product),
    }


def in_words(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its times as ISO 8601 text in UTC with a Z, microseconds only when there are any."""
    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(times).dt.strftime(_TIME_FORMAT)) if times else frame


def to_csv(words: pl.DataFrame) -> bytes:
    """RFC 4180, UTF-8 without a byte order mark; an empty field is a missing value."""
    return words.write_csv(line_terminator="\r\n").encode()


def to_json(head: dict[str, Any], rows: list[dict[str, Any]]) -> bytes:
    """One object: the metadata, then `rows`, one object per row."""
    return _ENCODER.encode({**head, "rows": rows})


def to_geojson(head: dict[str, Any], rows: list[dict[str, Any]], key: tuple[str, ...]) -> bytes:
    """RFC 7946 FeatureCollection of points; the metadata are foreign members. A feature's id is its cell's key."""
    features = []
    for row in rows:
        position = [row[name] for name in _COORDINATES]
        features.append(
            {
                "type": "Feature",
                "id": "/".join(str(row[name]) for name in key),
                "geometry": {"type": "Point", "coordinates": position},
                "properties": {name: value for name, value in row.items() if name not in _COORDINATES},
            }
        )
    return _ENCODER.encode({"type": "FeatureCollection", **head, "features": features})


def to_parquet(schema: pa.Schema, frame: pl.DataFrame, head: dict[str, Any]) -> bytes:
    """Parquet with unit and description on every field and the head as metadata of the schema; equal rows and
    equal heads give equal bytes."""
    said = {
        name: value if isinstance(value, str) else _ENCODER.encode(value)
        for name, value in head.items()
        if name != "fields" and value is not None
    }
    table = frame.to_arrow().cast(schema).replace_schema_metadata(said)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
