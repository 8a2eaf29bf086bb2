"""The open files that change: the latest feeds, the lampposts and the discovery document.

Each file is replaced as a whole (written aside, renamed). They are not fsynced: after a crash the next round
writes them anew. The archive, which is never written anew, is in `archive`.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import polars as pl

from contracts.feeds import (
    ARCHIVE,
    DISCOVERY,
    FEED_VERSION,
    FORMATS,
    LAMPPOST_FORMATS,
    MANIFEST,
    lampposts_path,
    latest_path,
)
from contracts.products import ATTRIBUTION, LICENCE, PRODUCTS, Product
from contracts.registry import Lamppost, Registry
from contracts.times import isoformat, to_us
from pipelines.release.archive import archive_window
from pipelines.release.rendering import (
    COORDINATE_DECIMALS,
    FeedMeta,
    NotPublic,
    about,
    conform,
    in_words,
    to_csv,
    to_geojson,
    to_json,
    to_parquet,
)

__all__ = ["FeedMeta", "NotPublic", "archive_window", "write_discovery", "write_lampposts", "write_latest"]

TTL_S = 1  # the feeds are written about once a second
_DIRECTION_FACTS = ("direction_id", "bearing_deg", "road_en", "road_tc", "road_sc", "lane_count", "speed_limit_kmh")


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_bytes(content)
    aside.replace(path)


def write_latest(open_folder: Path, product: Product, rows: pl.DataFrame, meta: FeedMeta) -> None:
    """Replace a product's latest feed in every format. Raises NotPublic when the rows are not the product's."""
    frame = conform(product, rows)
    words, head = in_words(frame), about(product, meta)
    objects = words.to_dicts()
    contents = {
        "geojson": to_geojson(head, objects, product.key),
        "csv": to_csv(words),
        "json": to_json(head, objects),
        "parquet": to_parquet(product.schema, frame, head),
    }
    for extension, content in contents.items():
        _replace(open_folder / latest_path(product.name, extension), content)


def _public_facts(post: Lamppost) -> dict[str, Any]:
    """What everybody may know of a post: where it stands and what it can sense; no models, no clamps, no gateway."""
    return {
        "post_id": post.post_id,
        "name_en": post.name.en,
        "name_tc": post.name.tc,
        "name_sc": post.name.sc,
        "area": post.area,
        "district": post.district,
        "latitude": round(post.latitude, COORDINATE_DECIMALS),
        "longitude": round(post.longitude, COORDINATE_DECIMALS),
        "easting_m": post.easting_m,
        "northing_m": post.northing_m,
        "streams": sorted(post.streams - {"status"}),
        "directions": [
            {
                "direction_id": direction.direction_id,
                "bearing_deg": direction.bearing_deg,
                "road_en": direction.road.en,
                "road_tc": direction.road.tc,
                "road_sc": direction.road.sc,
                "lane_count": len(direction.lanes),
                "speed_limit_kmh": direction.speed_limit_kmh,
            }
            for direction in post.directions
        ],
    }


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without lists: the values of a list stand in one field, in order, with `|` between them."""
    flat = {name: value for name, value in facts.items() if name not in {"streams", "directions"}}
    flat["streams"] = "|".join(facts["streams"]) or None
    for name in _DIRECTION_FACTS:
        flat[name] = "|".join(str(direction[name]) for direction in facts["directions"]) or None
    return flat


def _columns(flat: Iterable[dict[str, Any]]) -> pl.DataFrame:
    numbers = dict.fromkeys(("latitude", "longitude", "easting_m", "northing_m"), pl.Float64)
    text = dict.fromkeys(("post_id", "name_en", "name_tc", "name_sc", "area", "district"), pl.String)
    lists = dict.fromkeys(("streams", *_DIRECTION_FACTS), pl.String)
    return pl.DataFrame(list(flat), schema={**text, **numbers, **lists})


def write_lampposts(open_folder: Path, registry: Registry, now: datetime) -> None:
    """Replace the public facts of the lampposts that are valid now; detectors are not the city's to publish."""
    facts = [_public_facts(post) for post in registry.valid(to_us(now)) if post.kind == "lamppost"]
    head = {
        "title": "Lampposts",
        "description": "Where the lampposts stand and what they sense. WGS84, and the HK1980 grid (EPSG:2326).",
        "licence": LICENCE,
        "attribution": ATTRIBUTION,
        "generated_at": isoformat(now),
        "registry_version": registry.version,
        "schema_version": FEED_VERSION,
    }
    contents = {"geojson": to_geojson(head, facts, ("post_id",)), "csv": to_csv(_columns(map(_flat, facts)))}
    for extension in LAMPPOST_FORMATS:
        _replace(open_folder / lampposts_path(extension), contents[extension])


def _urls(path: str, extensions: Iterable[str]) -> dict[str, dict[str, str]]:
    return {extension: {"url": f"{path}.{extension}", "type": FORMATS[extension]} for extension in extensions}


def write_discovery(open_folder: Path, now: datetime, periods_s: Mapping[str, int] | None = None) -> None:
    """Replace feeds.json, the list of all feeds in the manner of GBFS; `periods_s` are window lengths in seconds by
    product, where they differ from the contract's. URLs are relative to the host that serves the document."""
    periods = {name: product.period_s for name, product in PRODUCTS.items()} | dict(periods_s or {})
    feeds = [
        {
            "name": product.name,
            "title": product.title,
            "description": product.description,
            "licence": LICENCE,
            "period_s": periods[product.name],
            "is_noised": product.is_noised,
            "formats": _urls("/" + str(latest_path(product.name, "csv").with_suffix("")), FORMATS),
        }
        for product in PRODUCTS.values()
    ]
    feeds.append(
        {
            "name": "lampposts",
            "title": "Lampposts",
            "description": "Where the lampposts stand and what they sense.",
            "licence": LICENCE,
            "period_s": None,
            "is_noised": False,
            "formats": _urls("/" + str(PurePosixPath(lampposts_path("csv")).with_suffix("")), LAMPPOST_FORMATS),
        }
    )
    document = {
        "version": str(FEED_VERSION),
        "ttl": TTL_S,
        "last_updated": isoformat(now),
        "languages": ["en", "zh-Hant", "zh-Hans"],
        "licence": LICENCE,
        "attribution": ATTRIBUTION,
        "archive": f"/{ARCHIVE / MANIFEST}",
        "feeds": feeds,
    }
    _replace(open_folder / DISCOVERY, msgspec.json.format(msgspec.json.encode(document), indent=1))
