"""Publish again whenever the lake's positions, the registry or the file of the districts change."""

import contextlib
import signal
import time
from threading import Event

from contracts.layout import stamp, write_progress
from contracts.logs import say
from warehouse.catalogue import Kept, NotPublished, publish
from warehouse.config import Config

RETRY_S = 1.0  # after a disk that refused


def follow(config: Config, stop: Event) -> None:
    """Publish now and after every change, until `stop` is set; says once a second how far the catalogue is.

    What refuses for now (a full disk) is said once, and tried again.
    """
    with contextlib.closing(Kept()) as kept:
        _follow(config, kept, stop)


def _follow(config: Config, kept: Kept, stop: Event) -> None:
    progress = config.layout.progress("warehouse")
    seen: object = None
    refusal = ""
    reported = float("-inf")
    published, seconds, covered_us = 0, 0.0, 0
    while not stop.is_set():
        # looked at before the files are read: a change in between is published by the next round
        inputs = (config.layout.positions, config.registry, config.districts)
        stamps = (*(stamp(path) if path else None for path in inputs), config.layout.catalogue.exists())
        if stamps != seen:
            start = time.monotonic()
            try:
                covered_us = publish(config, kept).positions.covered_us
            except NotPublished as error:
                if str(error) != refusal:
                    refusal = str(error)
                    say("warehouse", refusal, "error")
                stop.wait(RETRY_S)
                continue
            seconds = time.monotonic() - start
            published += 1
            seen, refusal = (*stamps[:-1], True), ""
        if time.monotonic() - reported >= 1:
            reported = time.monotonic()
            figures = {"published": published, "publish_s": round(seconds, 4), "covered_us": covered_us}
            with contextlib.suppress(OSError):  # it waits for room like the catalogue
                write_progress(progress, {**figures, "time_us": time.time_ns() // 1000})
        stop.wait(config.poll_s)


def run_until_signal(config: Config) -> None:
    """Follow until SIGTERM or SIGINT."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    follow(config, stop)
