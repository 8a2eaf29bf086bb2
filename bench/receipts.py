"""How soon a device may forget, and whether ingest grows: a live fleet against ingest and receipts on a real broker."""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from bench.figures import figure
from tests.broker import Mosquitto
from tests.end_to_end.city import City, wait_for

RATE = 2_000
STARTS_S = 10.0  # the fleet's start, which nobody waits for in a city that runs
WARM_UP_S = 60.0
SAMPLE_S = 2.0
PATIENCE_S = 120.0


class NotEnoughError(Exception):
    """The machine could not do what was to be measured."""


def receipts(seconds: float) -> None:
    """`ingest.receipt_p99_s`: from each message's first sending to the receipt that covers it, at RATE. Raises
    NotEnoughError when the devices did not keep up the rate."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        receipted = folder / "receipted.ndjson"
        with Mosquitto(folder / "mosquitto", is_autosaving=False) as broker, City(folder / "data", broker.port) as city:
            _begin(city)
            city.run(*_publish(receipted), "--seconds", str(seconds + STARTS_S), "--confirm", timeout_s=seconds + 300)
        lines = [json.loads(line) for line in receipted.read_bytes().splitlines()]
    since_us = min(line["time_us"] for line in lines) + STARTS_S * 1e6
    spent_ms = sorted(spent for line in lines if line["time_us"] >= since_us for spent in line["latency_ms"])
    if len(spent_ms) < 0.9 * RATE * seconds:
        raise NotEnoughError(f"{len(spent_ms) / seconds:,.0f} messages a second were receipted, not {RATE:,}")
    figure("ingest.receipt_p99_s", value=spent_ms[int(len(spent_ms) * 0.99)] / 1000, unit="s", messages=len(spent_ms))
    figure("ingest.receipt_p50_s", value=median(spent_ms) / 1000, unit="s", messages=len(spent_ms))


def memory(minutes: float) -> None:
    """`ingest.memory_growth`: resident memory of ingest at the end over that after the warm-up, at RATE, and the same
    of the receipts process. Each is the median of a minute (of a tenth of the time, when that is less). Raises
    NotEnoughError when a process did not live through it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Mosquitto(folder / "mosquitto", is_autosaving=False) as broker, City(folder / "data", broker.port) as city:
            watched = dict(zip(("ingest", "receipts"), map(psutil.Process, _begin(city)), strict=True))
            fleet = city.start(*_publish(None))
            samples: dict[str, list[float]] = {stage: [] for stage in watched}
            began = time.monotonic()
            warm_s, span_s = min(WARM_UP_S, minutes * 6), min(60.0, minutes * 6)
            while (spent_s := time.monotonic() - began) < warm_s + minutes * 60:
                time.sleep(SAMPLE_S)
                if fleet.poll() is not None:
                    raise NotEnoughError("the fleet has ended")
                for stage, process in watched.items():
                    try:
                        samples[stage].append(process.memory_info().rss / 2**20)
                    except psutil.NoSuchProcess:
                        raise NotEnoughError(f"{stage} has ended") from None
                if len(samples["ingest"]) % 30 == 0:
                    now = ", ".join(f"{stage} {values[-1]:.0f} MiB" for stage, values in samples.items())
                    print(f"{spent_s:.0f} s: {city.landed():,} landed, {now}", file=sys.stderr, flush=True)
            landed = city.landed()
    if landed < 0.9 * RATE * (warm_s + minutes * 60 - STARTS_S):
        raise NotEnoughError(f"{landed:,} messages landed, not {RATE:,} a second")
    count = max(1, round(span_s / SAMPLE_S))
    for stage, bench in (("ingest", "ingest.memory_growth"), ("receipts", "ingest.receipts_memory_growth")):
        values = samples[stage][round(warm_s / SAMPLE_S) :]
        first, last = median(values[:count]), median(values[-count:])
        figure(bench, value=last / first, unit="1", from_mib=round(first), to_mib=round(last), minutes=round(minutes))


def _begin(city: City) -> list[int]:
    """Registry, ingest and receipts; their process ids."""
    city.run("sensors_sim", "fleet")
    pids = [city.start("ingest", "run").pid]
    wait_for("ingest to subscribe", lambda: "durable" in city.progress("ingest"), PATIENCE_S)
    pids.append(city.start("ingest", "receipts").pid)
    wait_for("receipts to begin", lambda: bool(city.progress("receipts")), PATIENCE_S)
    return pids


def _publish(receipted: Path | None) -> list[str]:
    command = ["sensors_sim", "publish", "--rate", str(RATE), "--faults", "none"]
    return [*command, "--receipted", str(receipted)] if receipted else command
