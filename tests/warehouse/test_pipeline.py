"""What the pipeline writes is what analysts read: the catalogue over a lake that the Beam graph made."""

from collections import Counter
from pathlib import Path

import msgspec
import pytest
from deltalake import DeltaTable

from contracts import payloads
from contracts.layout import Positions
from contracts.schemas import TABLES
from contracts.topics import parse_device_topic
from pipelines import graph, lake
from pipelines.stages import Setup
from tests.pipelines.raw_log import Landed, land, make_root, messages
from warehouse.catalogue import publish
from warehouse.config import Config
from warehouse.query import open_catalogue

BROKEN = b'{"schema_version":1,'


def counted(landed: list[Landed]) -> Counter[str]:
    """Rows per view by an independent count of the messages' JSON."""
    counts: Counter[str] = Counter()
    for row in landed:
        place = parse_device_topic(row.topic)
        assert place is not None
        if row.payload == BROKEN:
            counts["quarantine"] += 1
            continue
        message = msgspec.json.decode(row.payload)
        match place[1]:
            case "weather" | "air":
                counts["observations"] += len(message) - len(payloads.Message.__struct_fields__)
            case "traffic":
                counts["lane_flows"] += len(message["lanes"])
            case stream:
                table = {"pedestrian": "footfall", "status": "device_status", "dumping": "dumping_events"}[stream]
                counts[table] += 1
    return counts


@pytest.mark.parametrize("folder", ["data", "a b#ü 'c' {d}=?"])
def test_every_message_is_found_by_sql(tmp_path: Path, folder: str) -> None:
    """Also in a folder of a name that addresses escape."""
    layout = make_root(tmp_path / folder)
    whole = messages(5, minutes=6)
    broken = [Landed(row.topic, BROKEN, row.received) for row in whole[:3]]
    # each message twice, as after a lost acknowledgement; copies are not counted
    segment = land(layout, [*whole, *broken, *whole])
    graph.run(Setup(root=layout.root, registry=layout.registry), [(segment,)])
    Positions(offsets={"a": segment.last + 1}, versions=lake.versions(layout.root), covered_us=0).store(
        layout.positions
    )
    publish(Config.build({}, layout.root))
    wanted = counted(whole)
    wanted["quarantine"] = len({(row.topic, row.payload) for row in broken})
    with open_catalogue(layout.catalogue) as connection:
        for name, count in wanted.items():
            assert connection.execute(f"SELECT count(*) FROM {name}").fetchall() == [(count,)], name
        for name, table in TABLES.items():
            found = connection.sql(f"SELECT * FROM lake.{name}").pl()
            stored = DeltaTable(str(layout.table(name)), version=lake.versions(layout.root)[name])
            assert found.height == stored.to_pyarrow_table().num_rows, name
            assert found.height == lake.scan(layout.root, table).collect().height, name
        vehicles = connection.execute("SELECT sum(vehicle_count) FROM flow_windows").fetchall()
        lanes = connection.execute("SELECT sum(vehicle_count) FROM lane_flows WHERE flag IN (1, 2)").fetchall()
        assert vehicles == lanes
        # a day at a post: what CONTRIBUTING and README may promise an analyst
        rows = connection.execute(
            "SELECT name_en, value FROM hourly JOIN lampposts USING (post_id) WHERE quantity = 'temperature_c'"
        ).fetchall()
        assert len(rows) == 3
        assert all(18 <= value <= 25 for _, value in rows)
