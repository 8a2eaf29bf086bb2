"""Settings of the pipelines, from the environment and the command line."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from contracts import settings
from contracts.health import parse_address
from contracts.layout import Layout
from contracts.payloads import Reason
from contracts.retention import EVER, RULES
from contracts.schemas import WINDOW_S
from pipelines.kernels.decode import Tolerance, retention_s
from pipelines.lake import QUERY_GRACE_S
from pipelines.pins import Keep
from pipelines.stages import Setup
from pipelines.tidy import Rules

HEALTH = "LAMPLIGHT_PIPELINES_HEALTH"


@dataclass(frozen=True, kw_only=True)
class Config:
    """`tick_s` is the least time between the starts of two ticks, `window_s` the period of the exact open products,
    `is_releasing` says whether open data is made at all, `health` where /metrics and /health are served, `disk_grace_s`
    how long the disk may refuse before the loop gives up, `final_grace_s` how long after its end a window waits for
    posts that are behind, `rules` what housekeeping keeps."""

    root: Path
    registry: Path
    tick_s: float
    window_s: int
    tolerance: Tolerance
    is_once: bool
    is_releasing: bool
    rules: Rules = field(default_factory=Rules)
    health: tuple[str, int] | None = None
    disk_grace_s: float = 300.0
    final_grace_s: float = 3600.0

    @property
    def setup(self) -> Setup:
        return Setup(root=self.root, registry=self.registry, tolerance=self.tolerance, window_s=self.window_s)

    @property
    def layout(self) -> Layout:
        return Layout(self.root)


def parser() -> argparse.ArgumentParser:
    """The command line of `python -m pipelines`."""
    top = argparse.ArgumentParser(prog="python -m pipelines", description="Clean, aggregate and release.")
    verbs = top.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run", help="take up each segment when it is sealed, until stopped")
    stream = verbs.add_parser(
        "stream",
        help="the same as an unbounded Beam job on a portable runner, supervised, until stopped",
        epilog="Further options of Beam follow after --.",
    )
    stream.add_argument("--runner", default="PrismRunner", help="PrismRunner (default), FlinkRunner, PortableRunner")
    stream.add_argument("--prism", type=Path, metavar="PATH", help="the Prism binary (LAMPLIGHT_PRISM)")
    stream.add_argument(
        "--environment",
        choices=("LOOPBACK", "EXTERNAL"),
        default="LOOPBACK",
        help="workers are threads of the driver (default) or processes of a pool that is started",
    )
    stream.add_argument("beam", nargs="*", metavar="-- OPTION", help="options of Beam")
    for verb in (run, stream):
        verb.add_argument("--once", action="store_true", help="drain what has landed and exit")
        verb.add_argument("--no-release", action="store_true", help="make no open data")
        verb.add_argument("--health", metavar="ADDRESS", help=f"PORT or HOST:PORT of /metrics and /health ({HEALTH})")
    replay = verbs.add_parser("replay-quarantine", help="judge quarantined messages again; those that pass leave")
    reasons = [reason.value for reason in Reason]
    which = replay.add_mutually_exclusive_group(required=True)
    which.add_argument("--reason", action="append", choices=reasons, metavar="REASON", help=", ".join(reasons))
    which.add_argument("--all", action="store_true", help="every reason")
    rebuild = verbs.add_parser("rebuild", help="judge the raw log again, after a new decoder or a corrected registry")
    for verb in (replay, rebuild):
        verb.add_argument("--since", type=_moment, metavar="TIME", help="only what was received since (ISO 8601, UTC)")
        verb.add_argument("--dry-run", action="store_true", help="say what would change and change nothing")
    fill = verbs.add_parser("backfill", help="read a span of the raw log in several processes, and end")
    fill.add_argument(
        "--from", dest="since", type=_moment, metavar="TIME", help="received from then on (ISO 8601, UTC)"
    )
    fill.add_argument("--to", dest="until", type=_moment, metavar="TIME", help="received before then; none: to the end")
    fill.add_argument("--processes", type=int, metavar="N", help="so many (default: as there are cores)")
    tidy = verbs.add_parser("tidy", help="one round of housekeeping: compaction, retention, vacuum, pins")
    tidy.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
    verbs.add_parser("explain", help="print the graph: its steps, what flows between, which tables each replaces")
    for verb in (run, stream, replay, rebuild, fill, tidy):
        verb.add_argument("--data", type=Path, help="data root (LAMPLIGHT_DATA)")
    return top


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _window(text: str) -> int:
    seconds = int(text)
    if seconds < 60 or 3600 % seconds or seconds % 60:
        raise ValueError("a window is a whole number of minutes that divides an hour, in seconds")
    return seconds


def _days(text: str) -> float | None:
    try:
        return None if text == EVER else settings.positive(text)
    except ValueError:
        raise ValueError(f"a number of days above zero or {EVER!r} is needed") from None


def _pins(text: str) -> Keep:
    numbers = [int(part) if part.strip().isdecimal() else -1 for part in text.split(",")]
    if numbers == [0]:
        return Keep(0, 0)
    if len(numbers) != 2 or min(numbers) < 0:
        raise ValueError("how many hourly and daily pins is needed, like 24,7; or 0")
    return Keep(*numbers)


def _grace_s(environ: Mapping[str, str]) -> int:
    grace_s = settings.read(environ, "LAMPLIGHT_QUERY_GRACE_S", float(QUERY_GRACE_S), settings.positive)
    timeout_s = settings.read(environ, "LAMPLIGHT_QUERY_TIMEOUT_S", 0.0, settings.positive)
    if grace_s < timeout_s:
        raise settings.SettingError(
            f"LAMPLIGHT_QUERY_GRACE_S={grace_s:g} is less than LAMPLIGHT_QUERY_TIMEOUT_S={timeout_s:g}: "
            "a query would lose the files that it reads"
        )
    return int(grace_s)


def from_environment(environ: Mapping[str, str], arguments: argparse.Namespace) -> Config:
    """Settings as given; raises SettingError that names the variable to change."""
    root = settings.data_root(environ, arguments.data)
    days = {rule.name: settings.read(environ, rule.variable, rule.days, _days) for rule in RULES}
    future_s = settings.read(environ, "LAMPLIGHT_FUTURE_TOLERANCE_S", 60.0, settings.positive)
    given = {HEALTH: arguments.health} if getattr(arguments, "health", None) else {}
    return Config(
        root=root,
        registry=settings.read(environ, "LAMPLIGHT_REGISTRY", Layout(root).registry, Path),
        tick_s=settings.read(environ, "LAMPLIGHT_TICK_S", 0.5, settings.positive),
        window_s=settings.read(environ, "LAMPLIGHT_WINDOW_S", WINDOW_S, _window),
        tolerance=Tolerance(retention_s=retention_s(days), future_s=int(future_s)),
        is_once=getattr(arguments, "once", False),
        is_releasing=not getattr(arguments, "no_release", False),
        rules=Rules(days=days, pins=settings.read(environ, "LAMPLIGHT_PINS", Keep(), _pins), grace_s=_grace_s(environ)),
        health=settings.read({**environ, **given}, HEALTH, None, parse_address),
        disk_grace_s=settings.read(environ, "LAMPLIGHT_DISK_GRACE_S", 300.0, settings.positive),
        final_grace_s=settings.read(environ, "LAMPLIGHT_FINAL_GRACE_S", 3600.0, settings.positive),
    )
