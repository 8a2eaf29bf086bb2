"""Publish again whenever the lake's positions, the registry or the file of the districts change."""

import os
import signal
import time
from pathlib import Path
from threading import Event

from contracts.layout import write_progress
from warehouse.catalogue import FileLists, publish
from warehouse.config import Config

NICENESS = 10  # the pipeline comes first


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def follow(config: Config, stop: Event) -> None:
    """Publish now and after every change, until `stop` is set; says once a second how far the catalogue is."""
    files = FileLists()
    progress = config.layout.progress("warehouse")
    seen: object = None
    reported = float("-inf")
    published, seconds, covered_us = 0, 0.0, 0
    while not stop.is_set():
        # looked at before the files are read: a change in between is published by the next round
        inputs = (config.layout.positions, config.registry, config.districts)
        stamps = (*map(_stamp, inputs), config.layout.catalogue.exists())
        if stamps != seen:
            start = time.monotonic()
            covered_us = publish(config, files).positions.covered_us
            seconds = time.monotonic() - start
            published += 1
            seen = (*stamps[:-1], True)
        if time.monotonic() - reported >= 1:
            reported = time.monotonic()
            figures = {"published": published, "publish_s": round(seconds, 4), "covered_us": covered_us}
            write_progress(progress, {**figures, "time_us": time.time_ns() // 1000})
        stop.wait(config.poll_s)


def run_until_signal(config: Config) -> None:
    """Follow until SIGTERM or SIGINT, niced."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    os.nice(NICENESS)
    follow(config, stop)
