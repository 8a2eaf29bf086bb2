"""The door: after each tick, what may leave leaves. Latest feeds each time, archive files when a window is closed and
quiet, noised windows once when they are due.

`closed_through` follows the lake, not the clock: a window is closed when every segment sealed before its end plus a
grace is contained.
"""

import time
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from contracts.feeds import archive_day
from contracts.products import PRODUCTS, Product
from contracts.registry import Registry
from contracts.schemas import FLOW_MINUTES, FLOW_WINDOW_S, WINDOWS
from contracts.settings import SettingError
from contracts.times import MINUTE_US, US, from_us
from pipelines.config import Config
from pipelines.files import Pinned
from pipelines.lake import file_bounds, newest_version, read_blocks
from pipelines.release import feeds, noise, traffic
from pipelines.release.exact import newest, product_rows
from pipelines.release.store import Store
from pipelines.stages import registry

EXACT = tuple(product for product in PRODUCTS.values() if not product.is_noised)
EXACT_GRACE_S = 2
SETTLE_S = 20  # a window that changes after its close waits for quiet before it is archived (again)
PATIENCE_S = 90  # but not longer than this
REMEMBER_S = 86_400
IDLE_S = 5
NOISE_NOTE = (
    f"vehicle_count is the count plus secret discrete Gaussian noise, sigma {noise.SIGMA}, drawn once; a noised value "
    f"under {noise.THRESHOLD} is null and is_suppressed."
)
NOISE_LOOK_S = 5


class LostLedger(SettingError):
    """A noised window is public but the release store does not know it: drawing again would reveal its count."""


class Door:
    """What was published when; all of it can be found again from the files."""

    def __init__(self, config: Config):
        self.config = config
        self.open_folder = config.layout.open
        self.store = Store(config.layout.releases)
        self.released = 0
        self._files: set[str] = set()
        self._prints: dict[int, int] = {}
        self._due: dict[int, int] = {}
        self._patience: dict[int, int] = {}
        self._archived: set[int] = set()
        self._newest_us = 0
        self._idle_us = 0
        self._noise_us = 0
        self._registry_version = -1
        self._drawn = self.store.windows(traffic.PRODUCT.name)
        self.noised_windows = 0
        self.released_windows = 0
        self._restore()

    def open(self, covered_us: int) -> None:
        """Publish what the lake holds; `covered_us`: every segment sealed before it is contained."""
        entries = registry(self.config.registry)
        pinned = newest_version(self.config.root, WINDOWS.name)
        changed = self._changed_windows(pinned)
        is_idle = covered_us >= self._idle_us
        if changed or is_idle:
            self._write_latest(pinned, entries, covered_us)
        if is_idle:
            self._idle_us = covered_us + IDLE_S * US
            self._write_traffic()
        self._archive(pinned, entries, changed, covered_us)
        if covered_us >= self._noise_us:
            self._noise_us = covered_us + NOISE_LOOK_S * US
            self._release_noised(entries, covered_us)

    def _closed_through(self, covered_us: int) -> datetime:
        """End of the newest window that is closed; 1970 while nothing is covered yet."""
        period_us = self.config.window_s * US
        return from_us(max(0, covered_us - EXACT_GRACE_S * US) // period_us * period_us)

    def _meta(self, covered_us: int, rows: pl.DataFrame, period_s: int) -> feeds.FeedMeta:
        through = rows["data_through"].max() if "data_through" in rows.columns and rows.height else None
        return feeds.FeedMeta(
            generated_at=from_us(time.time_ns() // 1000),
            data_through=through if isinstance(through, datetime) else None,
            closed_through=self._closed_through(covered_us),
            period_s=period_s,
        )

    def _changed_windows(self, pinned: Pinned) -> set[int]:
        """Starts (microseconds) of windows whose rows differ from those of the last look.

        Only windows in files that were not there are compared, by a fingerprint: a file is rewritten whenever any
        window in it changes.
        """
        files = file_bounds(pinned, WINDOWS)
        fresh = [(low, high) for path, low, high in files if path not in self._files]
        self._files = {path for path, _, _ in files}
        self._newest_us = max((high for _, _, high in files), default=0)
        oldest = self._newest_us - REMEMBER_S * US
        period_us = self.config.window_s * US
        minutes = {
            start // MINUTE_US
            for low, high in fresh
            for start in range(max(low, oldest // period_us * period_us), high + 1, period_us)
        }
        if not minutes:
            return set()
        rows = read_blocks(pinned, WINDOWS, minutes)
        prints = rows.group_by(pl.col("window_start").dt.epoch("us")).agg(
            pl.struct(pl.exclude("window_start")).hash().sort().implode().hash()
        )
        changed = {start for start, print_ in prints.iter_rows() if self._prints.get(start) != print_}
        self._prints.update(prints.iter_rows())
        for start in [start for start in self._prints if start < oldest]:
            del self._prints[start]
        return changed

    def _write_latest(self, pinned: Pinned, entries: Registry, covered_us: int) -> None:
        period_minutes = self.config.window_s * US // MINUTE_US
        # the open window and enough closed ones that a silent post keeps its last for a while
        # a post whose clock is ahead may have begun windows that the city has not
        now_block = (covered_us or self._newest_us) // MINUTE_US
        rows = read_blocks(pinned, WINDOWS, range(now_block - 3 * period_minutes, now_block + 1))
        for product in EXACT:
            frame = newest(self._exact_rows(rows, product, entries, covered_us))
            feeds.write_latest(self.open_folder, product, frame, self._meta(covered_us, frame, self.config.window_s))
        if entries.version != self._registry_version:
            now = from_us(time.time_ns() // 1000)
            feeds.write_lampposts(self.open_folder, entries, now)
            feeds.write_discovery(self.open_folder, now, {product.name: self.config.window_s for product in EXACT})
            self._registry_version = entries.version

    def _exact_rows(self, rows: pl.DataFrame, product: Product, entries: Registry, covered_us: int) -> pl.DataFrame:
        return product_rows(rows, product, entries, self._closed_through(covered_us), self.config.window_s)

    def _archive(self, pinned: Pinned, entries: Registry, changed: set[int], covered_us: int) -> None:
        period_us = self.config.window_s * US
        for start in changed:
            if start + period_us + REMEMBER_S * US < covered_us:
                continue
            # a window seen while it is open is archived at its close; one that changes later, when it is quiet
            is_first = start not in self._archived and start + period_us + SETTLE_S * US > covered_us
            is_settled = is_first or self.config.is_once
            settled = covered_us if is_settled else covered_us + SETTLE_S * US
            settled = min(settled, self._patience.setdefault(start, covered_us + PATIENCE_S * US))
            self._due[start] = max(start + period_us + EXACT_GRACE_S * US, settled)
        for start in [start for start, due in self._due.items() if due <= covered_us]:
            del self._due[start]
            del self._patience[start]
            self._archived.add(start)
            rows = read_blocks(pinned, WINDOWS, [start // MINUTE_US])
            for product in EXACT:
                frame = self._exact_rows(rows, product, entries, covered_us)
                if frame.is_empty():
                    continue
                meta = self._meta(covered_us, frame, self.config.window_s)
                if feeds.archive_window(self.open_folder, product, from_us(start), frame, meta):
                    self.released += frame.height
                    self.released_windows += 1

    def _release_noised(self, entries: Registry, covered_us: int) -> None:
        flows = file_bounds(newest_version(self.config.root, FLOW_MINUTES.name), FLOW_MINUTES)
        first_us = min((low for _, low, _ in flows), default=None)
        waiting = traffic.waiting_windows(self._drawn, first_us, covered_us)
        if not waiting:
            return
        posts = traffic.public_domain(entries, covered_us)
        if traffic.share_caught_up(self.config.root, posts, covered_us) < traffic.MINIMUM_COVERAGE:
            return
        for start in waiting:
            domain = traffic.public_domain(entries, start)
            covered = traffic.coverage(self.config.root, domain, start)
            if covered.total < traffic.MINIMUM_COVERAGE:
                continue
            if _archived(self.open_folder, traffic.PRODUCT, start):
                raise LostLedger(
                    f"traffic window {from_us(start)} is in open/archive but not in {self.config.layout.releases}: "
                    "restore the release store; its noise must never be drawn again"
                )
            now_us = time.time_ns() // 1000
            if traffic.draw(self.config.root, self.store, entries, start, covered, now_us):
                self.noised_windows += 1
            self._drawn.add(start)
            self._publish_noised(entries, start, covered_us)
        self._write_traffic()

    def _publish_noised(self, entries: Registry, start: int, covered_us: int) -> None:
        frame = traffic.release_rows(self.store.read(traffic.PRODUCT.name, start), entries)
        meta = self._meta(covered_us, frame, FLOW_WINDOW_S)
        if feeds.archive_window(self.open_folder, traffic.PRODUCT, from_us(start), frame, meta):
            self.released += frame.height
            self.released_windows += 1

    def _write_traffic(self) -> None:
        """The newest drawn window as it was archived: the registry may have changed since."""
        newest_us = self.store.newest(traffic.PRODUCT.name)
        frame = pl.DataFrame(traffic.PRODUCT.schema.empty_table())
        notes: tuple[str, ...] = ("No window has been released yet.",)
        closed = None
        if newest_us is not None:
            (path,) = _archived(self.open_folder, traffic.PRODUCT, newest_us)
            frame = pl.read_parquet(path, hive_partitioning=False)
            notes = (NOISE_NOTE,)
            closed = from_us(newest_us) + timedelta(seconds=FLOW_WINDOW_S)
        meta = feeds.FeedMeta(
            generated_at=from_us(time.time_ns() // 1000),
            data_through=closed,
            closed_through=closed,
            period_s=FLOW_WINDOW_S,
            notes=notes,
        )
        feeds.write_latest(self.open_folder, traffic.PRODUCT, frame, meta)

    def _restore(self) -> None:
        """Publish again what was drawn but did not reach the archive before a crash."""
        missing = [start for start in self._drawn if not _archived(self.open_folder, traffic.PRODUCT, start)]
        if missing:
            entries = registry(self.config.registry)
            for start in sorted(missing):
                self._publish_noised(entries, start, time.time_ns() // 1000)


def _archived(open_folder: Path, product: Product, start_us: int) -> list[Path]:
    """Archive files of a window; a noised one has one at most."""
    start = from_us(start_us)
    return sorted((open_folder / archive_day(product.name, start)).glob(f"{start:%Y%m%dT%H%M%SZ}-*.parquet"))
