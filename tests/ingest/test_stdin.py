"""`ingest stdin`: the same messages as NDJSON land as they would over MQTT."""

import base64
import json
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.layout import Layout
from contracts.times import isoformat
from ingest.landing import Landing
from ingest.stdin import parse
from tests.ingest.processes import command, environment, landed, until

NOW = datetime(2026, 11, 21, 8, 0, 0, 250_000, tzinfo=UTC)


def run(root: Path, content: bytes) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        command("stdin"), env=environment(root, 1), input=content, capture_output=True, timeout=60, check=False
    )


def test_a_bad_line_is_named_and_counted_and_the_others_land(tmp_path: Path) -> None:
    good = {"topic": "lamplight/v1/KT1001/air", "payload": "電", "received_time": isoformat(NOW)}
    bad = [
        b"not json",
        b'{"topic": "t"}',
        b'{"topic": "t", "payload": "", "payload_base64": ""}',
        b'{"topic": "t", "payload_base64": "*"}',
        b'{"topic": "t", "payload": "x", "received_time": "2026-11-21T08:00:00"}',
        b'{"topic": "t", "payload": "x", "colour": "red"}',
        b'{"payload": "x"}',
        b"\xff\xfe",
    ]
    content = b"\n".join([json.dumps(good).encode(), b"", *bad, json.dumps(good | {"payload": "last"}).encode()])
    done = run(tmp_path, content)
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert [line.split(": ")[2] for line in lines] == [f"line {number}" for number in range(3, 3 + len(bad))]
    assert done.stdout.decode() == f"2 messages landed, {len(bad)} lines refused\n"
    table = landed(tmp_path)
    assert table["payload"].to_pylist() == ["電".encode(), b"last"]
    assert table["topic"].to_pylist() == [good["topic"]] * 2
    assert table["received_time"].to_pylist() == [NOW] * 2


def test_nothing_in_leaves_no_segment(tmp_path: Path) -> None:
    done = run(tmp_path, b"\n \n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0 messages landed, 0 lines refused\n", b"")
    assert landed(tmp_path).num_rows == 0
    assert [path.name for path in Layout(tmp_path).raw.rglob("*") if path.is_file()] == ["lock"]


def test_a_pipe_that_stays_open_holds_nothing_back(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("stdin"), env=environment(tmp_path, 1), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        for number in range(2):
            process.stdin.write(b'{"topic": "t", "payload": "x"}\n')
            process.stdin.flush()
            until(lambda: landed(tmp_path).num_rows == number + 1)  # noqa: B023 (called before the next round)
        process.stdin.close()
        assert process.wait(30) == 0


@given(payload=st.binary(max_size=60), topic=st.text(max_size=20))
@settings(deadline=None, derandomize=True)
def test_any_bytes_come_through_as_base64_and_any_text_as_text(payload: bytes, topic: str) -> None:
    line = {"topic": topic, "payload_base64": base64.b64encode(payload).decode()}
    arrival = parse(json.dumps(line).encode())
    assert (arrival.topic, arrival.payload) == (topic, payload)
    arrival = parse(json.dumps({"topic": topic, "payload": topic}).encode())
    assert (arrival.topic, arrival.payload) == (topic, topic.encode())


@given(sizes=st.lists(st.integers(0, 40), max_size=30))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_offsets_count_on_over_sessions_and_segments(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        expected: list[str] = []
        for size in sizes:
            with Landing(layout, "a") as landing:
                assert landing.next_offset == len(expected)
                arrivals = [parse(b'{"topic": "%d", "payload": ""}' % number) for number in range(size)]
                if arrivals:
                    landing.append(arrivals[:1])
                    landing.seal()
                    if arrivals[1:]:
                        landing.append(arrivals[1:])
            expected += [arrival.topic for arrival in arrivals]
        assert landed(Path(folder))["topic"].to_pylist() == expected
