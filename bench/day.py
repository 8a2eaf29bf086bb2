"""A day of the simulated city, made again from a seed: the devices' messages with faults, landed without a broker,
brought into the lake by `pipelines backfill`, published. What the notebooks in docs/ show.

    python -m bench.day --data var/notebooks

Two posts of the registry stay silent all day, so that there is something to find.
"""

import argparse
import os
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from bench.faulty import make_log
from contracts import settings
from contracts.layout import Layout
from contracts.registry import save_registry
from contracts.settings import SettingError
from contracts.times import HONG_KONG, to_us
from sensors_sim import faults, sites
from sensors_sim.fleet import build

DISTRICTS = Path(sites.__file__).parent / "data" / "hk_18_districts.geojson"
MARK = ".made-by-bench-day"


def make_day(root: Path, posts: int, seed: int, start: datetime, hours: float) -> None:
    """A data root with a published lake of so many hours from `start` on; an older one of this kind is removed. Raises
    SettingError when the folder holds something else, CalledProcessError when a stage fails."""
    if root.exists():
        if any(root.iterdir()) and not (root / MARK).exists():
            raise SettingError(f"{root} holds something else than a generated day: choose another --data")
        shutil.rmtree(root)
    root.mkdir(parents=True)
    (root / MARK).touch()
    registry = build(posts, seed, detectors=False)
    silent = (posts // 3, 5 * posts // 6)
    heard = tuple(post for number, post in enumerate(registry.lampposts) if number not in silent)
    spoken = msgspec.structs.replace(registry, lampposts=heard)
    make_log(root, spoken, faults.parse("default"), seed, to_us(start), round(hours * 60))
    save_registry(Layout(root).registry, registry)
    for command in (["pipelines", "backfill"], ["warehouse", "publish"]):
        environ = {**os.environ, "LAMPLIGHT_DATA": str(root), "LAMPLIGHT_DISTRICTS": str(DISTRICTS)}
        subprocess.run([sys.executable, "-m", *command], env=environ, check=True)


def main(argv: list[str]) -> int:
    """Make the day that the options ask for; the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=Path("var/notebooks"))
    options.add_argument("--posts", type=int, default=80)
    options.add_argument("--seed", type=int, default=16)
    options.add_argument("--date", type=datetime.fromisoformat, default=datetime(2026, 11, 18))
    options.add_argument("--hours", type=float, default=24.0)
    given = options.parse_args(argv)
    start = given.date.replace(tzinfo=HONG_KONG)
    make_day(given.data, given.posts, given.seed, start, given.hours)
    end = start + timedelta(hours=given.hours)
    print(f"{given.posts} posts from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} in {given.data}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    settings.run(main)
