"""A line each second, and at the end a summary that says whether anything is missing."""

import signal
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from contracts.layout import Layout, Positions, read_progress
from contracts.times import US
from demo.account import Account, account
from demo.config import Config
from demo.freshness import Freshness

SILENT_S = 20

FIGURES = (
    ("published", "fleet"),
    ("durable", "ingest"),
    ("receipted", "fleet"),
    ("cleaned", "pipelines"),
    ("quarantined", "pipelines"),
)
MEANING = {
    "published": "messages that the broker took from the devices",
    "durable": "messages on disk, copies included",
    "receipted": "messages that devices may forget",
    "cleaned": "of them readings, copies included",
    "quarantined": "of them refused, with a reason",
    "released": "rows in the open archive",
}


@dataclass
class Figures:
    """What the stages last said, and when each counter last grew."""

    layout: Layout
    values: dict[str, int] = field(default_factory=dict)
    grown_at: dict[str, float] = field(default_factory=dict)
    stored_left: int | None = None
    noised_windows: int = 0
    live_since_us: int = 0

    def read(self) -> None:
        """Take what each stage has written."""
        stages = {stage: read_progress(self.layout.progress(stage)) for stage in ("fleet", "ingest", "pipelines")}
        for figure, stage in (*FIGURES, ("released", "pipelines")):
            value = int(stages[stage].get(figure, 0))
            if value > self.values.get(figure, 0) or figure not in self.grown_at:
                self.grown_at[figure] = time.monotonic()
            self.values[figure] = value
        fleet = stages["fleet"]
        self.stored_left = fleet.get("stored_left")
        self.live_since_us = int(fleet.get("live_since_us") or 0)
        self.noised_windows = int(stages["pipelines"].get("noised_windows", 0))

    def silent(self) -> list[str]:
        """Stages whose counter has stood still for too long."""
        now = time.monotonic()
        return [
            f"{figure} ({stage}) has stood still for {now - self.grown_at[figure]:.0f} s"
            for figure, stage in FIGURES
            if figure != "quarantined" and now - self.grown_at[figure] > SILENT_S
        ]


def run(config: Config) -> int:
    """Watch until told to stop, or for `config.seconds`; then check. The exit code."""
    is_stopped = False

    def stop(*_: Any) -> None:
        nonlocal is_stopped
        is_stopped = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    began = time.monotonic()
    figures = Figures(Layout(config.root))
    with httpx.Client(base_url=config.api_url, timeout=5) as client:
        freshness = Freshness(client=client)
        while not is_stopped and (config.seconds is None or time.monotonic() - began < config.seconds):
            second = time.monotonic()
            figures.read()
            freshness.since_us = figures.live_since_us
            freshness.look()
            print(line(time.monotonic() - began, figures, freshness), flush=True)
            while not is_stopped and time.monotonic() < second + 1:
                time.sleep(0.05)
                if time.monotonic() > second + 0.5:
                    freshness.look()
                    time.sleep(max(0.0, second + 1 - time.monotonic()))
        if is_stopped:
            print(summary(figures, freshness, None), flush=True)
            return 0
        return close(config, figures, freshness)


def line(elapsed_s: float, figures: Figures, freshness: Freshness) -> str:
    """The progress line."""
    counts = "  ".join(f"{name} {value:>7,}" for name, value in figures.values.items())
    ages = freshness.percentiles(last_s=60)
    fresh = "freshness -" if ages is None else f"freshness p50 {ages[0]:.1f} s p95 {ages[1]:.1f} s"
    stored = f"  ({figures.stored_left:,} stored readings to come)" if figures.stored_left else ""
    return f"{int(elapsed_s) // 60:02d}:{int(elapsed_s) % 60:02d}  {counts}  {fresh}{stored}"


def close(config: Config, figures: Figures, freshness: Freshness) -> int:
    """Wait until the lake covers this moment, compare with the raw log, print the summary; 1 when not all is well."""
    layout = Layout(config.root)
    now_us = time.time_ns() // 1000
    complaints = figures.silent()
    until = time.monotonic() + 2 * config.patience_s
    covered_us = 0
    while time.monotonic() < until:
        # a second more than the moment: a segment is sealed within a quarter of one
        covered_us = int(read_progress(layout.progress("pipelines")).get("covered_us", 0))
        if covered_us > now_us + US and Positions.load(layout.positions).covered_us:
            break
        time.sleep(0.2)
    else:
        complaints.append(f"pipelines did not catch up within {2 * config.patience_s:g} s")
    figures.read()
    freshness.look()
    found = account(layout, now_us)
    if found.missing:
        complaints.append(f"{found.missing} messages that ingest acknowledged are in no table")
    if found.doubled:
        complaints.append(f"{found.doubled} rows stand twice")
    if not found.landed:
        complaints.append("nothing landed")
    for name in ("weather", "air"):
        if not freshness.rows.get(name):
            complaints.append(f"the {name} feed has no rows")
    if time.time_ns() // 1000 - freshness.generated_us > SILENT_S * US:
        complaints.append(f"the open feeds were not written for {SILENT_S} s")
    print(summary(figures, freshness, found), flush=True)
    for complaint in complaints:
        print(f"NOT WELL: {complaint}", flush=True)
    if not complaints:
        print("All is well: every message that ingest acknowledged is a reading or in quarantine, once.", flush=True)
    return 1 if complaints else 0


def summary(figures: Figures, freshness: Freshness, found: Account | None) -> str:
    """The closing figures: what the stages counted, and the account of distinct messages where one was made."""
    rows = [f"{name:<22}{value:>12,}   {MEANING[name]}" for name, value in figures.values.items()]
    rows.append(f"{'noised windows':<22}{figures.noised_windows:>12,}   of traffic, drawn once")
    if found is not None:
        rows.append(
            f"{'distinct messages':<22}{found.landed:>12,}   = {found.readings:,} readings + {found.quarantined:,} "
            f"quarantined; missing {found.missing}, doubled {found.doubled}; {found.copies:,} copies besides"
        )
    for title, last_s in (("freshness, all", float("inf")), ("freshness, last 30 s", 30.0)):
        ages = freshness.percentiles(last_s)
        rows.append(
            f"{title:<22}" + ("no sample" if ages is None else f"p50 {ages[0]:>6.2f} s   p95 {ages[1]:>6.2f} s")
        )
    return "\n".join(["", "Lamplight demo, closing summary", *rows])
