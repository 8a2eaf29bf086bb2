"""Feeds: only what the product names can leave, the same number in every format, an archive that never changes."""

import csv
import io
import itertools
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.feeds import ARCHIVE, FORMATS, MANIFEST, latest_path
from contracts.layout import write_durably
from contracts.products import LICENCE, PRODUCTS, Product
from contracts.times import isoformat
from pipelines.release import archive
from pipelines.release.archive import Drawn
from pipelines.release.feeds import (
    NotPublic,
    archive_window,
    write_discovery,
    write_lampposts,
    write_latest,
)
from tests.feed_samples import START, meta, post_id, registry, rows

EVERY_PRODUCT = pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS.keys())
TRAFFIC, WEATHER = PRODUCTS["traffic"], PRODUCTS["weather"]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@EVERY_PRODUCT
def test_a_column_that_is_not_the_products_cannot_leave(tmp_path: Path, product: Product) -> None:
    with pytest.raises(NotPublic, match="release_count"):
        write_latest(tmp_path, product, rows(product).with_columns(release_count=1), meta(product))
    with pytest.raises(NotPublic, match="release_count"):
        archive_window(tmp_path, product, START, rows(product).with_columns(release_count=1), meta(product))
    with pytest.raises(NotPublic, match="completeness"):
        write_latest(tmp_path, product, rows(product).drop("completeness"), meta(product))
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_number_that_not_every_format_can_say_cannot_leave(tmp_path: Path, value: float | None) -> None:
    frame = rows(WEATHER).with_columns(completeness=pl.lit(value, pl.Float64))
    with pytest.raises(NotPublic, match="completeness"):
        write_latest(tmp_path, WEATHER, frame, meta(WEATHER))
    assert tree(tmp_path) == {}


def from_csv(content: bytes, product: Product) -> list[dict[str, Any]]:
    assert not content.startswith(b"\xef\xbb\xbf")
    assert content.endswith(b"\r\n")
    read: dict[str, Any] = {"double": float, "bool": lambda text: {"true": True, "false": False}[text]}
    read |= {"int64": int, "int32": int}
    kinds = {field.name: str(field.type) for field in product.schema}
    return [
        {name: read.get(kinds[name], str)(text) if text else None for name, text in row.items()}
        for row in csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))
    ]


def from_geojson(content: bytes) -> list[dict[str, Any]]:
    made = []
    for feature in json.loads(content)["features"]:
        longitude, latitude = feature["geometry"]["coordinates"]
        made.append({**feature["properties"], "longitude": longitude, "latitude": latitude})
    return made


def from_parquet(content: bytes) -> list[dict[str, Any]]:
    return [
        {name: isoformat(value) if isinstance(value, datetime) else value for name, value in row.items()}
        for row in pq.read_table(io.BytesIO(content)).to_pylist()
    ]


def read_all(folder: Path, product: Product) -> dict[str, list[dict[str, Any]]]:
    content = {name: (folder / latest_path(product.name, name)).read_bytes() for name in FORMATS}
    return {
        "geojson": from_geojson(content["geojson"]),
        "csv": from_csv(content["csv"], product),
        "json": json.loads(content["json"])["rows"],
        "parquet": from_parquet(content["parquet"]),
    }


def exactly(found: list[dict[str, Any]]) -> list[dict[str, str]]:
    # repr tells 1.0 from 1, -0.0 from 0.0, and every bit of a float
    return [{name: repr(value) for name, value in sorted(row.items())} for row in found]


@EVERY_PRODUCT
@pytest.mark.parametrize("seed", range(5))
def test_the_same_number_in_every_format(tmp_path: Path, product: Product, seed: int) -> None:
    frame = rows(product, count=12, seed=seed)
    write_latest(tmp_path, product, frame.sample(fraction=1, shuffle=True, seed=seed), meta(product))
    found = read_all(tmp_path, product)
    assert exactly(found["csv"]) == exactly(found["json"]) == exactly(found["geojson"]) == exactly(found["parquet"])
    wanted = frame.sort("window_start", *product.key).with_columns(pl.col("latitude", "longitude").round(6))
    assert pl.read_parquet(tmp_path / latest_path(product.name, "parquet")).equals(wanted)


@settings(max_examples=60, deadline=None)
@given(value=st.floats(allow_nan=False, allow_infinity=False) | st.none())
def test_any_finite_number_is_the_same_in_every_format(tmp_path_factory: pytest.TempPathFactory, value: float) -> None:
    folder = tmp_path_factory.mktemp("open")
    frame = rows(WEATHER, count=1).with_columns(temperature_c=pl.lit(value, pl.Float64))
    write_latest(folder, WEATHER, frame, meta(WEATHER))
    for found in read_all(folder, WEATHER).values():
        assert repr(found[0]["temperature_c"]) == repr(value)


@EVERY_PRODUCT
def test_feeds_say_what_they_are(tmp_path: Path, product: Product) -> None:
    about = meta(product, closed_through=None, notes=("a note",))
    write_latest(tmp_path, product, rows(product), about)
    for name in ("json", "geojson"):
        head = json.loads((tmp_path / latest_path(product.name, name)).read_bytes())
        assert (head["product"], head["licence"], head["period_s"]) == (product.name, LICENCE, product.period_s)
        assert (head["generated_at"], head["closed_through"]) == (isoformat(about.generated_at), None)
        assert (head["data_through"], head["notes"]) == (isoformat(about.data_through or START), ["a note"])
        assert [field["name"] for field in head["fields"]] == product.schema.names
        assert all(field["description"] for field in head["fields"])
    schema = pq.read_schema(tmp_path / latest_path(product.name, "parquet"))
    assert schema.metadata[b"licence"].decode() == LICENCE
    assert [(field.name, field.type, field.metadata[b"unit"]) for field in schema] == [
        (field.name, field.type, field.metadata[b"unit"]) for field in product.schema
    ]
    header = (tmp_path / latest_path(product.name, "csv")).read_bytes().partition(b"\r\n")[0]
    assert header.decode("ascii").split(",") == product.schema.names


@EVERY_PRODUCT
def test_geojson_is_points_with_at_most_six_decimals(tmp_path: Path, product: Product) -> None:
    frame = rows(product).with_columns(longitude=pl.lit(114.123456789), latitude=pl.lit(22.3))
    write_latest(tmp_path, product, frame, meta(product))
    document = json.loads((tmp_path / latest_path(product.name, "geojson")).read_bytes())
    assert document["type"] == "FeatureCollection"
    assert {tuple(feature["geometry"]["coordinates"]) for feature in document["features"]} == {(114.123457, 22.3)}
    assert {feature["geometry"]["type"] for feature in document["features"]} == {"Point"}
    ids = [feature["id"] for feature in document["features"]]
    assert len(set(ids)) == len(ids) == frame.height


@EVERY_PRODUCT
def test_a_feed_without_rows_is_whole(tmp_path: Path, product: Product) -> None:
    write_latest(tmp_path, product, rows(product).clear(), meta(product, data_through=None))
    assert set(map(len, read_all(tmp_path, product).values())) == {0}


def test_nothing_is_left_aside(tmp_path: Path) -> None:
    for seed in range(3):
        write_latest(tmp_path, WEATHER, rows(WEATHER, seed=seed), meta(WEATHER))
    assert sorted(tree(tmp_path)) == sorted(str(latest_path("weather", name)) for name in FORMATS)


def test_lampposts_are_the_public_facts_of_valid_lampposts(tmp_path: Path) -> None:
    write_lampposts(tmp_path, registry(5), datetime(2026, 11, 21, tzinfo=UTC))
    features = json.loads((tmp_path / "lampposts.geojson").read_bytes())["features"]
    lines = list(csv.DictReader(io.StringIO((tmp_path / "lampposts.csv").read_text("utf-8"), newline="")))
    # no detector, and not the post whose entry has ended
    assert [line["post_id"] for line in lines] == sorted(map(post_id, range(5)))
    assert [feature["properties"]["post_id"] for feature in features] == [line["post_id"] for line in lines]
    for feature, line in zip(features, lines, strict=True):
        facts = feature["properties"]
        assert feature["geometry"]["coordinates"] == [float(line["longitude"]), float(line["latitude"])]
        assert (facts["name_tc"], facts["easting_m"]) == (line["name_tc"], float(line["easting_m"]))
        assert "|".join(facts["streams"]) == line["streams"] == "traffic|weather"
        assert "|".join(way["direction_id"] for way in facts["directions"]) == line["direction_id"]
    assert '""' not in (tmp_path / "lampposts.csv").read_text("utf-8").replace('""Central""', "")
    text = (tmp_path / "lampposts.geojson").read_text("utf-8")
    assert all(secret not in text for secret in ("clamp", "gateway", "model", "calibrated", "AID01101"))


def test_lampposts_of_an_empty_registry(tmp_path: Path) -> None:
    write_lampposts(tmp_path, registry(0), datetime(2026, 11, 21, tzinfo=UTC))
    assert json.loads((tmp_path / "lampposts.geojson").read_bytes())["features"] == []
    assert len((tmp_path / "lampposts.csv").read_text().splitlines()) == 1


def files(folder: Path, product: Product) -> list[dict[str, Any]]:
    """What the manifests say, reached through the index as a client would."""
    root = folder / ARCHIVE
    days = json.loads((root / MANIFEST).read_bytes())["days"]
    return [
        file
        for day in days
        if day["product"] == product.name
        for file in json.loads((root / day["manifest"]).read_bytes())["files"]
    ]


@EVERY_PRODUCT
def test_the_same_rows_are_archived_once(tmp_path: Path, product: Product) -> None:
    frame = rows(product)
    assert archive_window(tmp_path, product, START, frame, meta(product))
    before = tree(tmp_path)
    later = meta(product, now=datetime.now(UTC) + timedelta(hours=1), notes=("other",))
    assert not archive_window(tmp_path, product, START, frame.sample(fraction=1, shuffle=True, seed=2), later)
    assert tree(tmp_path) == before


@EVERY_PRODUCT
def test_equal_rows_make_equal_bytes(tmp_path: Path, product: Product) -> None:
    for name in ("one", "two"):
        archive_window(tmp_path / name, product, START, rows(product), meta(product))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_other_rows_of_an_exact_window_are_a_new_revision(tmp_path: Path) -> None:
    frames = [rows(WEATHER, seed=seed) for seed in (1, 2, 1)]
    archived: dict[str, bytes] = {}
    for frame in frames:
        assert archive_window(tmp_path, WEATHER, START, frame, meta(WEATHER))
        now = {name: content for name, content in tree(tmp_path).items() if name.endswith(".parquet")}
        assert archived.items() <= now.items(), "an archived file changed"
        archived = now
    listed = files(tmp_path, WEATHER)
    assert [(file["revision"], file["is_current"]) for file in listed] == [(1, False), (2, False), (3, True)]
    for file, frame in zip(listed, frames, strict=True):
        content = (tmp_path / ARCHIVE / file["path"]).read_bytes()
        assert (len(content), frame.height) == (file["bytes"], file["rows"])
        assert file["path"].endswith(f"/20261121T080000Z-{file['sha256'][:16]}.parquet")
        found = pl.read_parquet(io.BytesIO(content))
        assert found.equals(
            frame.sort("window_start", "post_id").with_columns(pl.col("latitude", "longitude").round(6))
        )


def test_noise_is_never_redrawn(tmp_path: Path) -> None:
    archive_window(tmp_path, TRAFFIC, START, rows(TRAFFIC, seed=1), meta(TRAFFIC))
    before = tree(tmp_path)
    with pytest.raises(Drawn):
        archive_window(tmp_path, TRAFFIC, START, rows(TRAFFIC, seed=2), meta(TRAFFIC))
    assert tree(tmp_path) == before


def test_noise_is_not_redrawn_either_when_a_crash_lost_the_manifest(tmp_path: Path) -> None:
    archive_window(tmp_path, TRAFFIC, START, rows(TRAFFIC, seed=1), meta(TRAFFIC))
    for manifest in tmp_path.rglob(MANIFEST):
        manifest.unlink()
    before = tree(tmp_path)
    with pytest.raises(Drawn):
        archive_window(tmp_path, TRAFFIC, START, rows(TRAFFIC, seed=2), meta(TRAFFIC))
    assert tree(tmp_path) == before
    assert archive_window(tmp_path, TRAFFIC, START, rows(TRAFFIC, seed=1), meta(TRAFFIC))
    assert [file["revision"] for file in files(tmp_path, TRAFFIC)] == [1]


@pytest.mark.parametrize("crash_at", [1, 2, 3])
def test_a_crash_at_any_write_is_mended_by_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    for product in PRODUCTS.values():
        archive_window(tmp_path / "whole", product, START, rows(product), meta(product))
        with monkeypatch.context() as patched:
            writes = itertools.count(1)

            def crash(path: Path, content: bytes, writes: Iterator[int] = writes) -> None:
                if next(writes) == crash_at:
                    raise KeyboardInterrupt
                write_durably(path, content)

            patched.setattr(archive, "write_durably", crash)
            with pytest.raises(KeyboardInterrupt):
                archive_window(tmp_path / "torn", product, START, rows(product), meta(product))
        archive_window(tmp_path / "torn", product, START, rows(product), meta(product))
    assert tree(tmp_path / "torn") == tree(tmp_path / "whole")


def test_rows_of_another_window_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotPublic, match="other windows"):
        archive_window(tmp_path, WEATHER, START + timedelta(minutes=5), rows(WEATHER), meta(WEATHER))
    assert tree(tmp_path) == {}


def test_the_index_counts_current_files(tmp_path: Path) -> None:
    windows = [START + timedelta(seconds=WEATHER.period_s * number) for number in range(200)]
    for start in windows:
        archive_window(tmp_path, WEATHER, start, rows(WEATHER, start=start, count=1), meta(WEATHER))
    archive_window(tmp_path, WEATHER, START, rows(WEATHER, count=1, seed=9), meta(WEATHER))
    days = json.loads((tmp_path / ARCHIVE / MANIFEST).read_bytes())["days"]
    assert [day["date"] for day in days] == ["2026-11-21", "2026-11-22"]
    assert [day["files"] for day in days] == [192, 8]
    assert days[0]["revisions"] == 193
    assert [file["window_start"] for file in files(tmp_path, WEATHER) if file["is_current"]] == list(
        map(isoformat, windows)
    )
    assert max(os.path.getsize(path) for path in tmp_path.rglob(MANIFEST)) < 200_000


def test_discovery_names_every_feed_that_is_written(tmp_path: Path) -> None:
    for product in PRODUCTS.values():
        write_latest(tmp_path, product, rows(product), meta(product))
    write_lampposts(tmp_path, registry(2), START)
    written = set(tree(tmp_path))
    write_discovery(tmp_path, START, {"weather": 20})
    document = json.loads((tmp_path / "feeds.json").read_bytes())
    urls = {form["url"].removeprefix("/") for feed in document["feeds"] for form in feed["formats"].values()}
    assert urls == written
    assert {feed["name"]: feed["period_s"] for feed in document["feeds"]}["weather"] == 20
    assert (document["last_updated"], document["ttl"], document["version"]) == (isoformat(START), 1, "1")
