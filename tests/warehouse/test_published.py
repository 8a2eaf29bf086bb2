"""The schema `open` says what the archive says: the same numbers, the newest revision of each, nothing else."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from contracts.feeds import ARCHIVE, MANIFEST, archive_day
from contracts.layout import Layout
from contracts.products import LICENCE, PRODUCTS
from contracts.settings import SettingError
from pipelines.release.feeds import archive_window
from tests.feed_samples import START, fill, meta, rows
from tests.warehouse.lake_samples import ask, config_of
from warehouse.catalogue import publish

WEATHER, AIR, TRAFFIC = (PRODUCTS[name] for name in ("weather", "air", "traffic"))
YESTERDAY = START - timedelta(days=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Windows of two days, one of them revised; no air."""
    root = tmp_path_factory.mktemp("data")
    folder = Layout(root).open
    for start, seed in ((YESTERDAY, 1), (START, 2), (START + timedelta(minutes=5), 3), (START, 4)):
        archive_window(folder, WEATHER, start, rows(WEATHER, start, seed=seed), meta(WEATHER))
    archive_window(folder, TRAFFIC, START, rows(TRAFFIC, START), meta(TRAFFIC))
    publish(config_of(root))
    return root


def manifest_files(root: Path) -> list[dict[str, Any]]:
    paths = sorted((Layout(root).open / ARCHIVE).glob(f"*/*/{MANIFEST}"))
    return [file for path in paths for file in msgspec.json.decode(path.read_bytes())["files"]]


def test_files_are_those_of_the_manifests(root: Path) -> None:
    found = ask(root, "SELECT * FROM files ORDER BY product, window_start, revision").to_dicts()
    wanted = sorted(manifest_files(root), key=lambda file: (file["product"], file["window_start"], file["revision"]))
    assert len(found) == len(wanted) == 5
    for row, file in zip(found, wanted, strict=True):
        assert (row["product"], row["path"], row["sha256"]) == (file["product"], file["path"], file["sha256"])
        assert (row["size_bytes"], row["row_count"]) == (file["bytes"], file["rows"])
        assert (row["revision"], row["is_current"]) == (file["revision"], file["is_current"])
        for name in ("window_start", "window_end"):
            assert row[name] == datetime.fromisoformat(file[name])
        assert row["date"] == row["window_start"].date()
    assert [row["is_current"] for row in found if row["product"] == "weather"] == [True, False, True, True]


def values(root: Path, product: str, where: str = "true") -> pl.DataFrame:
    return ask(root, f"SELECT * FROM published_{product} WHERE {where} ORDER BY window_start, post_id")


def test_values_are_the_published_ones_of_the_newest_revision(root: Path) -> None:
    folder = Layout(root).open / ARCHIVE
    current = [file["path"] for file in manifest_files(root) if file["product"] == "weather" and file["is_current"]]
    wanted = pl.concat([pl.read_parquet(folder / path, hive_partitioning=False) for path in current])
    found = values(root, "weather")
    assert found.select(wanted.columns).equals(wanted.sort("window_start", "post_id"))
    assert found["revision"].to_list() == [1] * 5 + [2] * 5 + [1] * 5
    # the noised product has its suppressed values as null
    found = values(root, "traffic")
    assert found.height == 10
    assert found["vehicle_count"].is_null().equals(found["is_suppressed"])


def test_what_no_manifest_names_is_not_public(root: Path, tmp_path: Path) -> None:
    shutil.copytree(Layout(root).open, Layout(tmp_path).open)
    publish(config_of(tmp_path))
    before = values(tmp_path, "weather")
    (path, *_) = sorted((Layout(tmp_path).open / archive_day("weather", START)).glob("*.parquet"))
    shutil.copy(path, path.with_name(path.name.replace("-", "-0", 1)))  # left by a crash
    assert values(tmp_path, "weather").equals(before)
    # a later window is there as soon as its manifest names it
    later = START + timedelta(minutes=10)
    archive_window(Layout(tmp_path).open, WEATHER, later, rows(WEATHER, later), meta(WEATHER))
    assert values(tmp_path, "weather").height == before.height + 5


def test_a_filter_on_the_day_opens_no_file_of_another(root: Path, tmp_path: Path) -> None:
    shutil.copytree(Layout(root).open, Layout(tmp_path).open)
    publish(config_of(tmp_path))
    for path in (Layout(tmp_path).open / archive_day("weather", START)).glob("*.parquet"):
        path.write_bytes(b"broken")
    assert values(tmp_path, "weather", f"date = '{YESTERDAY.date()}'").height == 5
    with pytest.raises(Exception, match="weather"):
        values(tmp_path, "weather")


def test_without_an_archive_there_are_the_same_columns(root: Path, tmp_path: Path) -> None:
    publish(config_of(tmp_path))
    columns = (
        "SELECT table_name, column_name, data_type, comment FROM duckdb_columns() "
        "WHERE schema_name = 'open' ORDER BY table_name, column_index"
    )
    assert ask(tmp_path, columns).equals(ask(root, columns))
    assert ask(root, columns)["comment"].null_count() == 0
    for name in ("files", "published_weather", "published_air", "published_traffic"):
        assert ask(tmp_path, f"FROM {name}").height == 0
    assert ask(root, "FROM published_air").height == 0
    # what comes is there from the next publishing on
    fill(Layout(tmp_path).open)
    publish(config_of(tmp_path))
    assert ask(tmp_path, "FROM published_air").height == 5


def test_products_are_the_contracts(root: Path) -> None:
    found = ask(root, "FROM products")
    assert found["product"].to_list() == list(PRODUCTS)
    assert set(found["licence"]) == {LICENCE}
    assert found["is_noised"].to_list() == [product.is_noised for product in PRODUCTS.values()]
    assert found["key"].to_list() == [list(product.key) for product in PRODUCTS.values()]


def test_a_broken_index_is_one_line_and_the_last_catalogue_stays(root: Path, tmp_path: Path) -> None:
    publish(config_of(tmp_path))
    before = Layout(tmp_path).catalogue.read_bytes()
    shutil.copytree(Layout(root).open, Layout(tmp_path).open)
    (Layout(tmp_path).open / ARCHIVE / MANIFEST).write_text("{")
    with pytest.raises(SettingError, match=r"manifest\.json"):
        publish(config_of(tmp_path))
    assert Layout(tmp_path).catalogue.read_bytes() == before
