"""`make bench-ingest`: durable ingest (the real `python -m ingest run`) beside others that subscribe.

Same publisher, same kind of broker with the same settings, new for every turn; the sides alternate and a figure is the
median of the rounds' ratios. A side's time runs from the first message that it received to the last that it was done
with: received, for a paho subscriber that does nothing and for Telegraf; for ingest, until the segment that holds it
is sealed. Besides: how soon receipts come, and whether memory grows (bench/receipts.py).
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import polars as pl

from bench import publisher, receipts, subscriber, telegraf
from bench.figures import figure
from contracts.layout import Layout, read_progress, sealed_segments
from contracts.segments import read_segment
from contracts.times import US
from contracts.topics import SUBSCRIPTION
from tests.broker import MOSQUITTO, Embedded, Mosquitto

PATIENCE_S = 60.0
CONNECTED_S = 2.0  # Telegraf does not tell when it has subscribed
PROCESSES = (1, 2)
Broker = Mosquitto | Embedded
Measure = Callable[[Broker, int, Path], float]  # (broker, messages, folder) -> messages per second
Rates = Mapping[str, list[float]]


class NotMeasuredError(Exception):
    """A side did not end as it should; the message says how."""


def noop(broker: Broker, count: int, _folder: Path) -> float:
    """Messages per second of the subscriber that does nothing."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    peer = context.Process(target=subscriber.run, args=(broker.port, count, theirs), daemon=True)
    peer.start()
    try:
        if not ours.poll(PATIENCE_S) or ours.recv() != "ready":
            raise NotMeasuredError("the subscriber was not ready in time")
        _publish(broker.port, count)
        if not ours.poll(PATIENCE_S):
            raise NotMeasuredError(f"the subscriber did not get {count} messages in {PATIENCE_S:g} s")
        spent_s: float = ours.recv()
        return count / spent_s
    finally:
        peer.kill()
        peer.join()


def durable(broker: Broker, count: int, folder: Path, processes: int = 1) -> float:
    """Messages per second of so many `python -m ingest run` together, each message in a sealed segment."""
    roots = [Layout(folder / name) for name in "abcdefgh"[:processes]]
    running = [_ingest(layout, broker) for layout in roots]
    try:
        _wait(lambda: all("durable" in _progress(layout) for layout in roots), "ingest was not ready in time")
        _publish(broker.port, count)
        _wait(
            lambda: sum(_progress(layout)["durable"] for layout in roots) >= count,
            f"ingest did not get {count} messages in {PATIENCE_S:g} s",
        )
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(PATIENCE_S) for process in running]
    if any(codes):
        raise NotMeasuredError(f"ingest ended with exit codes {codes}")
    rows, began_us, ended_s = 0, 2**62, 0.0
    for layout in roots:
        segments = sealed_segments(layout.raw, layout.root.name)
        for segment in segments:
            times = pl.DataFrame(read_segment(layout.raw, segment))["received_time"].dt.epoch("us")
            rows, began_us = rows + len(times), min(began_us, times[0])
            ended_s = max(ended_s, segment.path(layout.raw).stat().st_mtime)
    if rows != count:
        raise NotMeasuredError(f"{rows} messages landed of {count}")
    return count / (ended_s - began_us / US)


def peer(settings: str, broker: Broker, count: int, folder: Path) -> float:
    """Messages per second of Telegraf with one of its settings."""
    with telegraf.Telegraf(settings, broker.port, SUBSCRIPTION, folder) as running:
        time.sleep(CONNECTED_S)
        _publish(broker.port, count)
        spent_s = running.seconds_for(count, PATIENCE_S)
    if spent_s is None:
        raise NotMeasuredError(f"telegraf did not write {count} messages in {PATIENCE_S:g} s")
    return count / spent_s


def _ingest(layout: Layout, broker: Broker) -> "subprocess.Popen[bytes]":
    """One process; each has its own folder, so that its progress can be read, and its own instance name."""
    environment = {
        **os.environ,
        "LAMPLIGHT_DATA": str(layout.root),
        "LAMPLIGHT_MQTT_HOST": "127.0.0.1",
        "LAMPLIGHT_MQTT_PORT": str(broker.port),
        "LAMPLIGHT_INGEST_SUBSCRIPTION": broker.subscription,
        "LAMPLIGHT_INGEST_INSTANCE": layout.root.name,
    }
    return subprocess.Popen([sys.executable, "-m", "ingest", "run"], env=environment)


def _progress(layout: Layout) -> dict[str, int]:
    name = layout.root.name
    return read_progress(layout.progress("ingest" if name == "a" else f"ingest-{name}"))


def _publish(port: int, count: int) -> None:
    process = get_context("spawn").Process(target=publisher.publish, args=(port, count), daemon=True)
    process.start()
    process.join(PATIENCE_S)
    if process.exitcode != 0:
        process.kill()
        raise NotMeasuredError("the publisher failed")


def _wait(is_done: Callable[[], bool], complaint: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not is_done():
        if time.monotonic() >= until:
            raise NotMeasuredError(complaint)
        time.sleep(0.2)


def race(
    title: str,
    broker: Callable[[Path], AbstractContextManager[Broker]],
    sides: Mapping[str, Measure],
    count: int,
    rounds: int,
) -> Rates:
    """Messages per second of each side in each round, every turn on a new broker. Raises NotMeasuredError."""
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            with tempfile.TemporaryDirectory() as folder, broker(Path(folder) / "broker") as running:
                rates[side].append(sides[side](running, count, Path(folder)))
            print(f"{title}, round {number + 1}: {side} {rates[side][-1]:,.0f} msg/s", file=sys.stderr, flush=True)
    return rates


def compare(bench: str, rates: Rates, ours: str, theirs: str, **more: int) -> None:
    """Print one figure of a race."""
    pairs = [mine / other for mine, other in zip(rates[ours], rates[theirs], strict=True)]
    value, against = median(rates[ours]), median(rates[theirs])
    figure(bench, value=value, unit="msg/s", against=against, ratio=median(pairs), **more)


def beside_noop(bench: str, broker: Callable[[Path], AbstractContextManager[Broker]], count: int, rounds: int) -> None:
    """Ingest in one process beside a subscriber that does nothing."""
    compare(bench, race(bench, broker, {"noop": noop, "durable": durable}, count, rounds), "durable", "noop")


def beside_telegraf(count: int, rounds: int) -> None:
    """Ingest, in as many processes as serve it best here, beside Telegraf as it comes and tuned."""
    try:
        telegraf.program()
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasuredError(str(error)) from error
    ours = {f"durable by {number}": partial(durable, processes=number) for number in PROCESSES}
    sides: dict[str, Measure] = {**ours, **{name: partial(peer, name) for name in telegraf.SETTINGS}}
    rates = race("ingest.durable/telegraf", _mosquitto, sides, count, rounds)
    best = max(ours, key=lambda side: median(rates[side]))
    for name in telegraf.SETTINGS:
        compare(f"ingest.durable/{name}", rates, best, name, processes=int(best.rsplit(maxsplit=1)[-1]))


def _mosquitto(folder: Path) -> Mosquitto:
    return Mosquitto(folder, is_autosaving=False)


def _embedded(_folder: Path) -> Embedded:
    return Embedded()


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code is not 0 when a figure could not be measured."""
    top = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__)
    top.add_argument("--messages", type=int, default=100_000, help="per turn (100000)")
    top.add_argument("--rounds", type=int, default=3)
    top.add_argument("--seconds", type=float, default=60.0, help="of the receipts' figure (60)")
    top.add_argument("--minutes", type=float, default=10.0, help="of the memory's figure (10)")
    top.add_argument("--only", help="figures whose name contains this")
    arguments = top.parse_args(argv)
    count, rounds = arguments.messages // publisher.CONNECTIONS * publisher.CONNECTIONS, arguments.rounds
    code = 0
    races: dict[str, Callable[[], None]] = {
        "ingest.durable/noop": lambda: beside_noop("ingest.durable/noop", _mosquitto, count, rounds),
        "ingest.embedded.durable/noop": lambda: beside_noop("ingest.embedded.durable/noop", _embedded, count, rounds),
        "ingest.durable/telegraf": lambda: beside_telegraf(count, rounds),
        "ingest.receipt_p99_s": lambda: receipts.receipts(arguments.seconds),
        "ingest.memory_growth": lambda: receipts.memory(arguments.minutes),
    }
    for bench, measure in races.items():
        if arguments.only and arguments.only not in bench:
            continue
        try:
            if MOSQUITTO is None and "embedded" not in bench:
                raise NotMeasuredError("mosquitto is not installed")
            measure()
        except (NotMeasuredError, receipts.NotEnoughError, AssertionError, subprocess.TimeoutExpired) as error:
            print(f"{bench}: not measured: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
