"""Traffic volume: post x direction x 15 minutes, drawn once (law 7), and only when the window's readings are in.

The decision to draw looks at heartbeats, at whether half-minutes landed, and at how far devices are behind, all of
which come whether vehicles pass or not. It never looks at a count or a speed.
"""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from contracts.products import PRODUCTS
from contracts.registry import Lamppost, Registry
from contracts.schemas import (
    DEVICE_STATUS,
    FLOW_MINUTES,
    FLOW_WINDOW_S,
    FLOW_WINDOWS,
    LANE_FLOWS,
)
from contracts.streams import HALF_MINUTE_S
from contracts.times import MINUTE_US, US, from_us
from pipelines.lake import newest_version, read_blocks
from pipelines.release import noise
from pipelines.release.store import Cell, Release, Store

PRODUCT = PRODUCTS["traffic"]
GRACE_S = 45  # after a window's end, for messages on their way
LATE_S = 60  # after the grace, a release is called late
MINIMUM_COVERAGE = 0.9
MAXIMUM_WAIT_S = 86_400  # a window that nobody could cover within a day is never drawn
IN_FLIGHT = 4  # messages of a stream that a healthy device has sent and not yet seen acknowledged
_HALVES_PER_MINUTE = 60 // HALF_MINUTE_S
_PERIOD_US = FLOW_WINDOW_S * US


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of a window is durable: share of all expected half-minutes, and per post."""

    total: float
    by_post: dict[str, float]


def public_domain(registry: Registry, window_start_us: int) -> list[Lamppost]:
    """Posts whose traffic is published: lampposts with a traffic sensor that are valid at the window's start."""
    return [post for post in registry.valid(window_start_us) if post.kind == "lamppost" and "traffic" in post.streams]


def waiting_windows(drawn: set[int], first_us: int | None, covered_us: int) -> list[int]:
    """Starts of the windows that may be due: begun when the first reading came, ended, grace over, not drawn."""
    if first_us is None:
        return []
    oldest = max(first_us, covered_us - MAXIMUM_WAIT_S * US) // _PERIOD_US * _PERIOD_US
    latest = covered_us - GRACE_S * US - _PERIOD_US
    return [start for start in range(oldest, latest + 1, _PERIOD_US) if start not in drawn]


def _blocks(start_us: int, end_us: int) -> range:
    return range(start_us // MINUTE_US, end_us // MINUTE_US)


def coverage(root: Path, posts: list[Lamppost], window_start_us: int) -> Coverage:
    """Half-minutes of the window that landed in minutes that a heartbeat of the post vouches for.

    A heartbeat vouches for its own minute and the ones beside it: its beat is not aligned to the clock.
    """
    inside = _blocks(window_start_us, window_start_us + _PERIOD_US)
    halves = (
        read_blocks(newest_version(root, FLOW_MINUTES.name), FLOW_MINUTES, inside)
        .group_by(["post_id", "window_start"])
        .agg(halves=pl.col("half_minutes").max().clip(0, _HALVES_PER_MINUTE))
    )
    beats = (
        read_blocks(newest_version(root, DEVICE_STATUS.name), DEVICE_STATUS, range(inside.start - 1, inside.stop + 1))
        .filter(pl.col("kind") != "will")
        .select("post_id", minute=pl.col("event_time").dt.truncate("1m"))
    )
    vouched = pl.concat(
        [beats.select("post_id", window_start=pl.col("minute") + timedelta(minutes=shift)) for shift in (-1, 0, 1)]
    ).unique()
    heard = dict(
        halves.join(vouched, on=["post_id", "window_start"], how="semi")
        .group_by("post_id")
        .agg(pl.col("halves").sum())
        .iter_rows()
    )
    expected = FLOW_WINDOW_S // HALF_MINUTE_S
    by_post = {post.post_id: heard.get(post.post_id, 0) / expected for post in posts}
    return Coverage(total=sum(by_post.values()) / len(posts) if posts else 0.0, by_post=by_post)


def share_caught_up(root: Path, posts: list[Lamppost], covered_us: int) -> float:
    """Share of the posts whose newest traffic message of the last minutes says that no stored readings are left.

    `first_seq` is the lowest message that the device still held when it made this one.
    """
    recent = read_blocks(
        newest_version(root, LANE_FLOWS.name), LANE_FLOWS, _blocks(covered_us - 4 * MINUTE_US, covered_us + MINUTE_US)
    )
    newest = recent.sort(["event_time", "seq"]).unique(subset="post_id", keep="last")
    caught_up = set(newest.filter(pl.col("seq") - pl.col("first_seq") <= IN_FLIGHT)["post_id"])
    return sum(post.post_id in caught_up for post in posts) / len(posts) if posts else 0.0


def draw(root: Path, store: Store, registry: Registry, window_start_us: int, covered: Coverage, now_us: int) -> bool:
    """Draw one window over its whole public domain, zeros included, and write it once; False if it was drawn."""
    posts = public_domain(registry, window_start_us)
    block = window_start_us // MINUTE_US
    rows = read_blocks(newest_version(root, FLOW_WINDOWS.name), FLOW_WINDOWS, [block])
    counts = {(row[0], row[1]): row[2] for row in rows.select("post_id", "direction", "release_count").iter_rows()}
    cells = [(post.post_id, direction.direction_id) for post in posts for direction in post.directions]
    noised, rho = noise.draw([counts.get(cell, 0) for cell in cells])
    due_us = window_start_us + _PERIOD_US + (GRACE_S + LATE_S) * US
    return store.write(
        Release(
            product=PRODUCT.name,
            window_start_us=window_start_us,
            period_s=FLOW_WINDOW_S,
            released_at_us=now_us,
            sigma=noise.SIGMA,
            threshold=noise.THRESHOLD,
            rho=rho,
            is_late=now_us > due_us,
            coverage=covered.total,
            registry_version=registry.version,
            cells=tuple(
                Cell(post_id=cell[0], direction=cell[1], noised=value, completeness=covered.by_post[cell[0]])
                for cell, value in zip(cells, noised, strict=True)
            ),
        )
    )


def release_rows(release: Release, registry: Registry) -> pl.DataFrame:
    """Rows of the traffic product from what was drawn: a noised value under the threshold is shown as null."""
    start = from_us(release.window_start_us)
    rows = []
    for cell in release.cells:
        post = registry.at(cell.post_id, release.window_start_us)
        if post is None:
            raise LookupError(f"the registry has lost {cell.post_id}, of which a release at {start} speaks")
        bearings = {row.direction_id: row.bearing_deg for row in post.directions}
        is_suppressed = cell.noised < release.threshold
        rows.append(
            {
                "post_id": cell.post_id,
                "latitude": post.latitude,
                "longitude": post.longitude,
                "direction": cell.direction,
                "bearing_deg": bearings[cell.direction],
                "window_start": start,
                "window_end": start + timedelta(seconds=release.period_s),
                "vehicle_count": None if is_suppressed else cell.noised,
                "is_suppressed": is_suppressed,
                "ci95": round(1.96 * release.sigma, 1),
                "completeness": cell.completeness,
                "is_late_release": release.is_late,
                "released_at": from_us(release.released_at_us),
            }
        )
    empty = pl.DataFrame(PRODUCT.schema.empty_table())
    return pl.DataFrame(rows, schema=empty.schema)
