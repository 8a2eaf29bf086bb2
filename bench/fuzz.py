"""`make fuzz`: a million mutated messages through both decoders, and some of them through the whole way.

`fuzz.mutants`: how many were tried; `fuzz.crashes`: how many made a decoder raise, or a stage end; `fuzz.unaccounted`:
how many are not exactly one reading or one row of quarantine. What broke is said on standard error.
"""

import argparse
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import paho.mqtt.client as mqtt
import polars as pl
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from bench.figures import figure
from bench.held import held, landed
from contracts.layout import Layout
from contracts.payloads import digest
from contracts.retention import EVER, RULES
from contracts.topics import SUBSCRIPTION
from tests.broker import MOSQUITTO, Mosquitto
from tests.end_to_end.city import City, wait_for
from tests.fuzz.laws import Found, examine
from tests.fuzz.mutants import Mutant, mutants
from tests.pipelines.raw_log import make_root
from warehouse.query import open_catalogue

BATCH = 20_000
SHOWN = 20
PATIENCE_S = 120.0
_LEVELS = 200  # more than Mosquitto takes
_NONE = 0xFDD0, 0xFDEF  # code points that are no characters


def batches(source: Iterator[Mutant]) -> Iterator[list[Mutant]]:
    """Mutants in groups whose receipts differ."""
    while batch := list(islice(source, BATCH)):
        yield batch


def is_sendable(topic: str) -> bool:
    """Whether a broker takes a topic that ingest subscribes to."""
    return (
        topic.startswith(SUBSCRIPTION.removesuffix("#"))
        and len(topic.encode()) <= 65_535
        and topic.count("/") < _LEVELS
        and not any(letter in "+#" or _is_refused(ord(letter)) for letter in topic)
    )


def _is_refused(point: int) -> bool:
    """Control characters and what is no character, which MQTT forbids."""
    is_control = point < 0x20 or 0x7F <= point <= 0x9F
    return is_control or _NONE[0] <= point <= _NONE[1] or point & 0xFFFE == 0xFFFE


def send(port: int, messages: Sequence[tuple[str, bytes]]) -> None:
    """Publish at QoS 1 and return when the broker has acknowledged all. Raises TimeoutError when it does not."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="fuzz", protocol=MQTTProtocolVersion.MQTTv5)
    room, left, is_done = threading.Semaphore(100), len(messages), threading.Event()

    def published(*_: object) -> None:
        nonlocal left
        left -= 1
        room.release()
        if not left:
            is_done.set()

    client.on_publish = published
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = 3600
    client.connect("127.0.0.1", port, clean_start=False, properties=properties)
    client.loop_start()
    try:
        for topic, payload in messages:
            if not room.acquire(timeout=PATIENCE_S):
                raise TimeoutError(f"the broker acknowledged nothing for {PATIENCE_S:g} s; next was {topic!r:.100}")
            client.publish(topic, payload, 1)
        if not is_done.wait(PATIENCE_S):
            raise TimeoutError(f"the broker has not acknowledged {left} messages")
    finally:
        client.disconnect()
        client.loop_stop()


def through(seed: int, count: int, folder: Path) -> Found:
    """Send mutants by a real broker through ingest and the pipelines, and look where they are."""
    sent = [(topic, payload) for topic, payload, _ in mutants(seed, count) if is_sendable(topic)]
    found = Found(mutants=len(sent))
    # the mutants' times lie around a fixed day
    wide = {**{rule.variable: EVER for rule in RULES}, "LAMPLIGHT_FUTURE_TOLERANCE_S": "1e10"}
    layout = make_root(folder / "data")
    with Mosquitto(folder / "mosquitto", is_autosaving=False) as broker, City(layout.root, broker.port, **wide) as city:
        ingest = city.start("ingest", "run")
        wait_for("ingest to subscribe", lambda: "durable" in city.progress("ingest"))
        receipts = city.start("ingest", "receipts")
        wait_for("receipts to begin", lambda: bool(city.progress("receipts")))
        try:
            send(broker.port, sent)
            wait_for("all messages to land", lambda: city.landed() >= len(sent), PATIENCE_S)
        except (TimeoutError, AssertionError) as error:
            found.unaccounted.append(f"{error}: {city.landed()} of {len(sent)} landed")
        for name, stage in (("ingest", ingest), ("receipts", receipts)):
            if stage.poll() is not None or city.stop(stage) != 0:
                found.crashes.append(f"{name} did not end well")
        try:
            city.run("pipelines", "run", "--once", "--no-release", timeout_s=600)
            city.run("warehouse", "publish", timeout_s=600)
        except AssertionError as error:
            found.crashes.append(f"pipelines or warehouse: {error}")
            return found
    return _accounted(layout, sent, found)


def _accounted(layout: Layout, sent: list[tuple[str, bytes]], found: Found) -> Found:
    wanted = Counter((topic, digest(payload)) for topic, payload in sent)
    there = landed(layout)
    got = Counter(dict(zip(there.select("topic", "digest").rows(), there["count"].to_list(), strict=True)))
    for (topic, mark), count in ((wanted - got) + (got - wanted)).items():
        found.unaccounted.append(f"{count} too few or too many landed of {topic!r:.100}, digest {mark}")
    lake = held(layout)
    found.readings += lake.readings.height
    places = pl.concat([lake.readings.select("topic", "digest"), lake.quarantine.select("topic", "digest")])
    counts = Counter(places.rows())
    for name in (Counter(wanted.keys()) - counts) + (counts - Counter(wanted.keys())):
        found.unaccounted.append(f"in {counts[name]} places: {name[0]!r:.100}, digest {name[1]}")
    found.unaccounted += ["rows stand twice in a table"] * lake.doubled
    with open_catalogue(layout.catalogue) as catalogue:
        # seqs up to 2^53 may be claimed, so each row is held to its own sum
        wrong = catalogue.execute(
            "SELECT post_id, stream, window_start FROM ledger"
            " WHERE expected_count <> accepted_count + quarantined_count + dropped_count + missing_count"
        ).fetchall()
    found.unaccounted += [f"the ledger does not add up: {row}" for row in wrong]
    return found


def main(argv: list[str]) -> int:
    """Run the mutants; the exit code is not 0 when something broke or could not be tried."""
    top = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    top.add_argument("--mutants", type=int, default=1_000_000, help="through the decoders (1000000)")
    top.add_argument("--through", type=int, default=20_000, help="through broker, ingest and pipelines (20000)")
    top.add_argument("--seed", type=int, default=1)
    arguments = top.parse_args(argv)
    found, code = Found(), 0
    for batch in batches(mutants(arguments.seed, arguments.mutants)):
        found.add(examine(batch))
        print(f"{found.mutants:,} mutants, {found.readings:,} readings", file=sys.stderr, flush=True)
    if arguments.through and MOSQUITTO is None:
        print("the whole way was not tried: mosquitto is not installed", file=sys.stderr)
        code = 1
    elif arguments.through:
        with tempfile.TemporaryDirectory() as folder:
            whole = through(arguments.seed + 1, arguments.through, Path(folder))
        print(f"the whole way: {whole.mutants:,} mutants, {whole.readings:,} readings", file=sys.stderr)
        found.add(whole)
    for line in (found.crashes + found.unaccounted)[:SHOWN]:
        print(line, file=sys.stderr)
    figure("fuzz.mutants", value=found.mutants, unit="messages")
    figure("fuzz.crashes", value=len(found.crashes), unit="messages")
    figure("fuzz.unaccounted", value=len(found.unaccounted), unit="messages")
    return 1 if found.crashes or found.unaccounted else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
