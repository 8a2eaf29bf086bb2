"""gaps() joins the windows in which less landed than was promised, while the registry promises it; lampposts_at()."""

from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from random import Random

import msgspec
import polars as pl
import pytest

from contracts.layout import Layout, Positions
from contracts.registry import RegistryFile, save_registry
from contracts.schemas import WINDOWS
from contracts.times import to_us
from pipelines.kernels.frames import conform
from tests.feed_samples import lamppost
from tests.warehouse.generated_day import windows_of
from tests.warehouse.lake_samples import START, ask, config_of, write
from warehouse.catalogue import publish

FIVE = timedelta(minutes=5)
MOVED = START + timedelta(hours=2, minutes=3)  # the old entry ends
BACK = START + timedelta(hours=3, minutes=2)  # the new one begins
THROUGH = START + timedelta(hours=6, minutes=4, seconds=59)
POST = lamppost(1).post_id
FEW = 5


def fill(root: Path, found: dict[datetime, int]) -> None:
    """A lake with so many temperatures of the post in each window, and another post's that begin the lake."""
    some = windows_of({"temperature_c": 20.0}, START, hours=6, post=POST).filter(
        pl.col("window_start").is_in(list(found))
    )
    counts = pl.DataFrame(
        {"window_start": list(found), "landed": list(found.values())}, schema_overrides={"landed": pl.Int64}
    )
    some = some.join(counts.cast({"window_start": some.schema["window_start"]}), on="window_start")
    # one of those that landed is flagged
    some = some.with_columns(flagged_count=pl.col("landed").clip(0, 1), value_count=pl.col("landed").clip(1) - 1)
    other = windows_of({"temperature_c": 20.0}, START, hours=1, post=lamppost(2).post_id)
    rows = pl.concat([conform(some.drop("landed"), WINDOWS), other]).to_arrow().cast(WINDOWS.schema)
    Positions(offsets={}, versions={"windows": write(root, WINDOWS, rows)}, covered_us=to_us(THROUGH)).store(
        Layout(root).positions
    )
    post = lamppost(1, valid_from=START - timedelta(days=90))
    entries = (
        msgspec.structs.replace(post, valid_to=MOVED),
        msgspec.structs.replace(post, valid_from=BACK, latitude=22.5),
        lamppost(2),
    )
    save_registry(Layout(root).registry, RegistryFile(version=1, lampposts=entries))
    publish(config_of(root))


def expected(found: dict[datetime, int]) -> list[tuple[datetime, datetime, int, int]]:
    """The runs of promised windows with less than five values."""
    windows = [START + number * FIVE for number in range(72)]
    promised = [start for start in windows if start + FIVE <= THROUGH and (start + FIVE <= MOVED or start >= BACK)]
    short = [start for start in promised if found.get(start, 0) < FEW]
    runs = groupby(enumerate(short), key=lambda item: item[1] - item[0] * FIVE)
    spans = [[start for _, start in run] for _, run in runs]
    return [(span[0], span[-1] + FIVE, FEW * len(span), sum(found.get(start, 0) for start in span)) for span in spans]


@pytest.mark.parametrize("seed", range(3))
def test_gaps_are_the_runs_of_windows_that_lack_values(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    windows = [START + number * FIVE for number in range(72)]
    kept = [start for start in windows if random.random() < 0.8 and not (200 < (start - START).seconds // 60 < 240)]
    found = {start: random.choice((0, 3, 5, 5, 5, 5, 6)) for start in kept}
    fill(tmp_path, found)
    wanted = expected(found)
    assert len(wanted) > 5
    assert ask(tmp_path, f"SELECT * FROM gaps('{POST}', 'temperature_c')").rows() == wanted


def test_of_what_nobody_promised_nothing_is_missing(tmp_path: Path) -> None:
    fill(tmp_path, {START: FEW})
    # everything after the first window is missing, but for the time between the two entries
    wanted = expected({START: FEW})
    assert [(start, end) for start, end, *_ in wanted] == [
        (START + FIVE, START + 24 * FIVE),
        (START + 37 * FIVE, START + 72 * FIVE),
    ]
    assert ask(tmp_path, f"SELECT * FROM gaps('{POST}', 'temperature_c')").rows() == wanted
    for call in (f"'{POST}', 'no2_ug_m3'", "'XX9999', 'temperature_c'", "NULL, 'rain_mm'", f"'{POST}', NULL"):
        assert ask(tmp_path, f"SELECT * FROM gaps({call})").rows() == []
    # promised and never heard
    silent = ask(tmp_path, f"SELECT * FROM gaps('{POST}', 'rain_mm')").rows()
    assert [row[3] for row in silent] == [0, 0]


def test_an_empty_lake_has_no_gaps(tmp_path: Path) -> None:
    save_registry(Layout(tmp_path).registry, RegistryFile(version=1, lampposts=(lamppost(1),)))
    publish(config_of(tmp_path))
    assert ask(tmp_path, f"SELECT * FROM gaps('{POST}', 'temperature_c')").rows() == []


def test_the_registry_is_asked_as_it_was_at_a_moment(tmp_path: Path) -> None:
    fill(tmp_path, {START: FEW})
    for moment, latitude in (
        (MOVED - timedelta(microseconds=1), lamppost(1).latitude),
        (MOVED, None),
        (BACK - timedelta(microseconds=1), None),
        (BACK, 22.5),
    ):
        found = ask(tmp_path, f"SELECT latitude FROM lampposts_at('{moment}') WHERE post_id = '{POST}'")
        assert found["latitude"].to_list() == ([] if latitude is None else [latitude])
