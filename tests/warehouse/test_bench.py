"""`make bench-warehouse` on an hour of a few posts, and what its figures rest on."""

import json
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench import analyst, month, warehouse
from contracts.layout import Layout
from contracts.registry import load_registry, save_registry
from contracts.times import MINUTE_US, to_us
from tests.feed_samples import registry
from tests.warehouse.lake_samples import config_of, fill_lake, store
from warehouse.catalogue import publish
from warehouse.query import open_catalogue

FIGURES = {
    "storage.bytes_per_reading",
    "catalogue.publish_ms",
    *(f"query.{name}{end}" for name in ("latest_ms", "month_hourly_ms", "city_day_ms") for end in ("", "/fresh")),
    "query.city_day_ms/all",
    "query.city_day_ms/all/fresh",
    "query.latest.glob/ours",
    "query.month_hourly.glob/ours",
}
HOUR, POSTS = 1 / 24, 10


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("month")
    month.month(root, HOUR, POSTS)
    return root


def options(root: Path, **changes: Any) -> list[str]:
    said = {"--part": "questions", "--days": HOUR, "--posts": POSTS, "--root": root} | changes
    return [str(part) for pair in said.items() for part in pair]


def test_every_figure_is_measured(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warehouse, "ROUNDS", 2)
    monkeypatch.setattr(warehouse, "PUBLISHINGS", 1)
    assert warehouse.main(options(root)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["bench"] for line in lines} == FIGURES
    assert all(line["value"] > 0 for line in lines)
    # another month in the same place is refused
    assert warehouse.main(options(root, **{"--posts": 11})) == 1
    assert "give another --root" in capsys.readouterr().err


def test_a_latest_value_that_is_not_the_readings_is_no_figure(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(config_of(root))
    with open_catalogue(Layout(root).catalogue) as connection:
        warehouse._check(connection)
        monkeypatch.setattr(warehouse, "_USED", "flag IN (1, 2) AND NOT is_conflicting AND value < 20")
        with pytest.raises(LookupError, match="differ"):
            warehouse._check(connection)


def test_the_month_has_jitter_silent_posts_and_no_raw_log(root: Path) -> None:
    facts = json.loads((root / "month.json").read_text())
    posts = [(post, number == 3) for number, post in enumerate(load_registry(Layout(root).registry).file.lampposts)]
    facts["done"] = 0
    rows = list(month._messages(posts, facts, 60, "seed"))
    assert rows == list(month._messages(posts, facts, 60, "seed"))
    last: Counter[str] = Counter()
    offsets = set()
    for topic, payload, received_us in rows:
        head = msgspec.json.decode(payload)
        time_us = to_us(msgspec.convert(head["time"], type=datetime))
        assert received_us >= time_us
        last[topic.split("/")[-2]] = max(last[topic.split("/")[-2]], time_us)
        if topic.endswith("/weather"):
            offsets.add(time_us % MINUTE_US)
    assert len(offsets) > 400
    silent = [post.post_id for post, is_silenced in posts if is_silenced]
    assert [post for post, time_us in last.items() if time_us < facts["silent_us"]] == silent
    assert not list(Layout(root).raw.glob("*/*/*.arrow"))


def test_an_analyst_finds_a_torn_catalogue(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyst, "EVERY_S", 0.05)
    publish(config_of(root))
    met = analyst.analyse(root, 0, time.time() + 2, seed=1)
    assert met["spent_ms"]
    assert (met["errors"], met["torn"]) == ([], [])
    # made-up rows of which no table follows from another
    store(tmp_path, fill_lake(tmp_path))
    save_registry(Layout(tmp_path).registry, registry(3).file)
    publish(config_of(tmp_path))
    monkeypatch.setattr(analyst, "QUESTIONS", ("SELECT '{post}'",))
    assert analyst.analyse(tmp_path, 0, time.time() + 0.5, seed=1)["torn"]
