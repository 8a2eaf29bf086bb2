"""`make bench-ingest`: durable ingest (the real `python -m ingest run`) beside a paho subscriber that does nothing.

Same publisher, same kind of broker with the same settings, new for every turn; the two sides alternate and the figure
is the median of the rounds' ratios. A side's time runs from the first message that it received to the last that it
was done with: received, for the one; for ingest, until the segment that holds it is sealed.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import polars as pl

from bench import publisher, subscriber
from bench.figures import figure
from contracts.layout import Layout, read_progress, sealed_segments
from contracts.segments import read_segment
from contracts.times import US
from tests.broker import MOSQUITTO, Embedded, Mosquitto

PATIENCE_S = 60.0
Broker = Mosquitto | Embedded


class NotMeasuredError(Exception):
    """A side did not end as it should; the message says how."""


def noop(port: int, count: int, _folder: Path) -> float:
    """Messages per second of the subscriber that does nothing."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    peer = context.Process(target=subscriber.run, args=(port, count, theirs), daemon=True)
    peer.start()
    try:
        if not ours.poll(PATIENCE_S) or ours.recv() != "ready":
            raise NotMeasuredError("the subscriber was not ready in time")
        _publish(port, count)
        if not ours.poll(PATIENCE_S):
            raise NotMeasuredError(f"the subscriber did not get {count} messages in {PATIENCE_S:g} s")
        spent_s: float = ours.recv()
        return count / spent_s
    finally:
        peer.kill()
        peer.join()


def durable(port: int, count: int, folder: Path) -> float:
    """Messages per second of `python -m ingest run`, each in a sealed segment."""
    layout = Layout(folder / "data")
    environment = {**os.environ, "LAMPLIGHT_DATA": str(layout.root), "LAMPLIGHT_MQTT_PORT": str(port)}
    ingest = subprocess.Popen([sys.executable, "-m", "ingest", "run"], env=environment)
    try:
        _wait(lambda: "durable" in read_progress(layout.progress("ingest")), "ingest was not ready in time")
        _publish(port, count)
        _wait(
            lambda: read_progress(layout.progress("ingest"))["durable"] >= count,
            f"ingest did not get {count} messages in {PATIENCE_S:g} s",
        )
    finally:
        ingest.send_signal(signal.SIGTERM)
        code = ingest.wait(PATIENCE_S)
    if code:
        raise NotMeasuredError(f"ingest ended with exit code {code}")
    segments = sealed_segments(layout.raw, "a")
    rows = sum(read_segment(layout.raw, segment).num_rows for segment in segments)
    if rows != count:
        raise NotMeasuredError(f"{rows} messages landed of {count}")
    began_us = pl.DataFrame(read_segment(layout.raw, segments[0]))["received_time"].dt.epoch("us")[0]
    ended_s = segments[-1].path(layout.raw).stat().st_mtime
    spent_s: float = ended_s - began_us / US
    return count / spent_s


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


def compare(name: str, broker: Callable[[Path], AbstractContextManager[Broker]], count: int, rounds: int) -> None:
    """Measure both sides in turns and print the figure. Raises NotMeasuredError."""
    rates: dict[str, list[float]] = {"noop": [], "durable": []}
    for number in range(rounds):
        sides = [("noop", noop), ("durable", durable)]
        for side, measure in sides if number % 2 == 0 else reversed(sides):
            with tempfile.TemporaryDirectory() as folder, broker(Path(folder) / "broker") as running:
                rates[side].append(measure(running.port, count, Path(folder)))
            print(f"{name}, round {number + 1}: {side} {rates[side][-1]:,.0f} msg/s", file=sys.stderr, flush=True)
    pairs = [ours / theirs for ours, theirs in zip(rates["durable"], rates["noop"], strict=True)]
    figure(name, value=median(rates["durable"]), unit="msg/s", against=median(rates["noop"]), ratio=median(pairs))


def main(argv: list[str]) -> int:
    """Run the benchmark; the exit code is not 0 when a figure could not be measured."""
    top = argparse.ArgumentParser(prog="python -m bench.ingest", description=__doc__)
    top.add_argument("--messages", type=int, default=100_000, help="per turn")
    top.add_argument("--rounds", type=int, default=3)
    arguments = top.parse_args(argv)
    count = arguments.messages // publisher.CONNECTIONS * publisher.CONNECTIONS
    code = 0
    for name, broker in (
        ("ingest.durable/noop", lambda folder: Mosquitto(folder, is_autosaving=False)),
        ("ingest.embedded.durable/noop", lambda _folder: Embedded()),
    ):
        if name == "ingest.durable/noop" and MOSQUITTO is None:
            print(f"{name}: not measured: mosquitto is not installed", file=sys.stderr)
            code = 1
            continue
        try:
            compare(name, broker, count, arguments.rounds)
        except NotMeasuredError as error:
            print(f"{name}: not measured: {error}", file=sys.stderr)
            code = 1
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
