"""Everything is killed with -9, the disk fills, the broker forgets: what was receipted is held once.

`make torture` does the same for longer.
"""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
from deltalake import write_deltalake

from bench import torture
from bench.verdict import Verdict, judge
from contracts.payloads import head
from contracts.topics import parse_device_topic
from tests.broker import need_mosquitto
from tests.end_to_end.city import City
from tests.pipelines.raw_log import POSTS, Landed, land, make_root, messages

# those that a post must send several times in vain, before it gives up, take too long here
FAULTS = "drop=0.002,wire=0.003,duplicate=0.01,reorder=0.01,malformed=0.002,sentinel=0.002,future=0.002"


def test_a_short_torture_loses_and_doubles_nothing(tmp_path: Path) -> None:
    need_mosquitto()
    verdict, recoveries = torture.torture(tmp_path, ["all", "disk", "forgetful"], Random(4), 200, FAULTS)
    assert (verdict.lost, verdict.doubled, verdict.unexplained) == (0, 0, 0), verdict.faults
    assert verdict.receipted > 1000
    assert set(recoveries) == {"all", "disk", "forgetful"}


@dataclass(frozen=True)
class Small:
    """A drained platform of one post whose messages were all receipted."""

    city: City
    receipted: Path
    truth: Path

    def verdict(self) -> Verdict:
        self.city.run("warehouse", "publish")
        return judge(self.city.layout, self.receipted, self.truth, probe="")


def small(folder: Path, without: int | None = None) -> Small:
    """One message is broken and one, by its place, may never have landed."""
    layout = make_root(folder / "data")
    sent = messages(5, minutes=4, posts=POSTS[:1])
    sent[3] = Landed(sent[3].topic, sent[3].payload[:-1] + b"]", sent[3].received)
    land(layout, [row for place, row in enumerate(sent) if place != without])
    found = Small(City(layout.root, port=1), folder / "receipted.ndjson", folder / "truth.ndjson")
    found.truth.touch()
    with found.receipted.open("w") as lines:
        for row in sent:
            lines.write(json.dumps(line_of(row)) + "\n")
    found.city.run("pipelines", "run", "--once", "--no-release")
    return found


def line_of(row: Landed) -> dict[str, Any]:
    name, place = head(row.payload), parse_device_topic(row.topic)
    assert name is not None
    assert place is not None
    return {"boot_id": name[0], "stream": place[1], "first_seq": name[1], "last_seq": name[1], "seq": name[1]}


def test_a_receipted_message_that_never_landed_is_lost_and_missing_unless_the_truth_tells(tmp_path: Path) -> None:
    place = 9
    found = small(tmp_path, without=place)
    verdict = found.verdict()
    assert (verdict.lost, verdict.doubled, verdict.unexplained) == (1, 0, 1), verdict.faults
    row = messages(5, minutes=4, posts=POSTS[:1])[place]
    found.truth.write_text(json.dumps({"fault": "drop"} | line_of(row)) + "\n")
    assert found.verdict().unexplained == 0


def test_rows_that_go_or_come_twice_are_found(tmp_path: Path) -> None:
    found = small(tmp_path)
    whole = found.verdict()
    assert (whole.lost, whole.doubled, whole.unexplained) == (0, 0, 0), whole.faults
    assert whole.receipted == len(messages(5, minutes=4, posts=POSTS[:1]))
    path = str(found.city.layout.table("footfall"))
    rows = pl.read_delta(path)
    later = rows.head(1).with_columns(pl.col("event_time") + timedelta(minutes=1))
    # the last is gone; the first is there with another time, the second twice
    write_deltalake(path, pl.concat([rows.head(-1), later, rows[1:2]]).to_arrow(), mode="overwrite")
    verdict = found.verdict()
    # the last one was receipted and has landed, and both are held against the lake
    assert (verdict.lost, verdict.doubled) == (2, 2), verdict.faults
