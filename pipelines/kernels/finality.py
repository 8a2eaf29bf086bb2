"""When the windows of a stream are final, and how often their rows changed after that.

A boot of a post numbers the messages of each stream from 0, so what may still come is a gap of seqs. A cover is the
set of seqs that need not come any more, as few runs: messages that landed, those below a message's first_seq, those
that a heartbeat reports as dropped or not held. Uniting covers is idempotent, commutative and associative: a cover
depends on what landed and on nothing else.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta

import polars as pl

from contracts.quantities import QUANTITIES
from contracts.schemas import ANNOUNCEMENTS, Table
from contracts.streams import STREAMS
from contracts.times import from_us
from pipelines.kernels.frames import schema_of

STEP_S = 300  # windows become final by this step, which every longer window is a multiple of
ALIVE_S = 3600  # a post is waited for while its stream was heard within so long

_TIME = pl.Datetime("us", "UTC")
_BOOT = ["post_id", "stream", "boot_id"]
_PERIODS = {row.name: timedelta(seconds=row.cadence_s or 0) for row in STREAMS.values() if row.is_period}
_STREAMS = {row.name: row.stream for row in QUANTITIES.values()}
_NEVER = from_us(0)

MESSAGES = pl.Schema(
    {
        "post_id": pl.String(),
        "stream": pl.String(),
        "boot_id": pl.String(),
        "seq": pl.Int64(),
        "first_seq": pl.Int64(),
        "event_time": _TIME,  # null where it cannot be believed
        "received_time": _TIME,
    }
)
STATEMENTS = pl.Schema(
    {
        "post_id": pl.String(),
        "event_time": _TIME,
        "received_time": _TIME,
        "previous_boot_id": pl.String(),
        "previous_highest_seq": pl.String(),
        "dropped": pl.String(),
        "oldest_held": pl.String(),
    }
)
# runs [low, high] of seqs. `first_time`: least event time of what landed in it, or of the birth that ends a boot;
# `until`: greatest end of what landed; `heard`: newest receipt of what landed; `told`: of what says that it is covered
COVER = pl.Schema(
    {
        "post_id": pl.String(),
        "stream": pl.String(),
        "boot_id": pl.String(),
        "low": pl.Int64(),
        "high": pl.Int64(),
        "first_time": _TIME,
        "until": _TIME,
        "heard": _TIME,
        "told": _TIME,
    }
)
_RANGE = {"boot_id": pl.String, "stream": pl.String, "first_seq": pl.Int64, "last_seq": pl.Int64}
_HELD = {"boot_id": pl.String, "stream": pl.String, "seq": pl.Int64}


def landed(messages: pl.DataFrame) -> pl.DataFrame:
    """The cover that MESSAGES make; copies do no harm."""
    # the rows of a message mostly stand together, and to group ten times as many takes ten times as long
    is_new = [pl.col(name).ne_missing(pl.col(name).shift(1)) for name in MESSAGES]
    messages = messages.filter(pl.any_horizontal(is_new))
    period = pl.col("stream").replace_strict(_PERIODS, default=timedelta(0), return_dtype=pl.Duration("us"))
    seq = pl.col("seq")
    # a first_seq above its seq is none: that head is broken
    is_told = (pl.col("first_seq") > 0) & (pl.col("first_seq") <= seq)
    boots = messages.group_by(_BOOT).agg(
        low=seq.min(),
        high=seq.max(),
        count=seq.n_unique(),
        end=pl.col("first_seq").filter(is_told).max(),
        told_end=pl.col("received_time").filter(is_told).max(),
        first_time=pl.col("event_time").min(),
        until=pl.col("event_time").max(),
        heard=pl.col("received_time").max(),
        told=pl.col("received_time").max(),
    )
    is_run = pl.col("high") - pl.col("low") + 1 == pl.col("count")
    # most boots are one run, and are spared the search for the others' gaps
    broken = messages.join(boots.filter(~is_run), on=_BOOT, how="semi").select(
        *_BOOT,
        low=seq,
        high=seq,
        first_time="event_time",
        until="event_time",
        heard="received_time",
        told="received_time",
    )
    runs = pl.concat([boots.filter(is_run).select(COVER.names()), broken])
    return unite_covers(
        runs.with_columns(pl.col("until") + period), _below(boots.drop_nulls("end").with_columns(told="told_end"))
    )


def stated(statements: pl.DataFrame) -> pl.DataFrame:
    """The cover that births and heartbeats report. A birth covers one seq more of the boot before than that has: so a
    gap at its end has the birth above it."""
    said = {"told": pl.col("received_time")}
    dropped = statements.select(
        "post_id", span=pl.col("dropped").str.json_decode(pl.List(pl.Struct(_RANGE))), **said
    ).explode("span", empty_as_null=False, keep_nulls=False)
    held = statements.select(
        "post_id", span=pl.col("oldest_held").str.json_decode(pl.List(pl.Struct(_HELD))), **said
    ).explode("span", empty_as_null=False, keep_nulls=False)
    highest = dict.fromkeys(STREAMS, pl.Int64)
    births = (
        statements.drop_nulls("previous_boot_id")
        .select(
            "post_id",
            pl.col("previous_highest_seq").str.json_decode(pl.Struct(highest)),
            boot_id="previous_boot_id",
            first_time="event_time",
            **said,
        )
        .unnest("previous_highest_seq")
        .unpivot(list(highest), index=["post_id", "boot_id", "first_time", "told"], variable_name="stream")
        .drop_nulls("value")
        .with_columns(low=pl.col("value") + 1, high=pl.col("value") + 1)
    )
    return unite_covers(
        _runs(dropped.unnest("span").select(*_BOOT, "told", low="first_seq", high="last_seq")),
        _below(held.unnest("span").select(*_BOOT, "told", end="seq")),
        _runs(births),
    )


def _below(ends: pl.DataFrame) -> pl.DataFrame:
    return _runs(ends.select(*_BOOT, "told", low=pl.lit(0, pl.Int64), high=pl.col("end") - 1))


def _runs(rows: pl.DataFrame) -> pl.DataFrame:
    absent = [pl.lit(None, kind).alias(name) for name, kind in COVER.items() if name not in rows.columns]
    return rows.with_columns(absent).filter(pl.col("low") <= pl.col("high")).select(COVER.names())


def unite_covers(*covers: pl.DataFrame) -> pl.DataFrame:
    """The union, as the fewest runs, those of a boot together and in ascending order."""
    rows = pl.concat(covers).sort(*_BOOT, "low")
    is_boot = pl.any_horizontal([pl.col(name).ne_missing(pl.col(name).shift(1)) for name in _BOOT])
    # a boot's number above the bits of a seq: so one running maximum serves all boots (by boot it takes ten times
    # as long)
    base = is_boot.cum_sum().cast(pl.Int128) * (1 << 63)
    low, reach = base + pl.col("low"), (base + pl.col("high")).cum_max().shift(1)
    return (
        rows.group_by(run=(reach.is_null() | (low > reach + 1)).cum_sum(), maintain_order=True)
        .agg(
            pl.col(*_BOOT, "low").first(),
            pl.col("high").max(),
            pl.col("first_time").min(),
            pl.col("until", "heard", "told").max(),
        )
        .select(COVER.names())
    )


def without_old(cover: pl.DataFrame, since: datetime) -> pl.DataFrame:
    """The cover without boots of which nothing was told since a moment."""
    return cover.filter(pl.col("told").max().over("post_id", "boot_id") >= since)


def contiguous_through(
    cover: pl.DataFrame, posts: pl.DataFrame, final_through: Mapping[str, datetime], covered: datetime
) -> dict[str, datetime]:
    """Until when every post that is waited for has landed without a gap, by stream; streams that no such post has are
    absent.

    `posts`: (post_id, stream) that the registry gives. Gaps that end at or before `final_through` do not matter; a
    stream without one must not be asked for. Of a gap the lowest missing message follows its lower neighbour, so
    everything until that one's time (or period's end) has landed; a gap that has none says that nothing has. A boot
    whose status was heard without its birth has a gap before all of its streams: nobody knows how the boot before
    ended.
    """
    since = pl.DataFrame(
        {"stream": list(final_through), "since": list(final_through.values())},
        schema={"stream": pl.String, "since": _TIME},
    )
    gaps = _gaps(cover)
    unborn = (
        gaps.filter((pl.col("stream") == "status") & (pl.col("lower") == _NEVER))
        .group_by("post_id")
        .agg(unborn=pl.col("upper").max())
    )
    limits = (
        gaps.join(since, on="stream")
        .filter(pl.col("upper") > pl.col("since"))
        .group_by("post_id", "stream")
        .agg(limit=pl.col("lower").min())
    )
    streams = (
        cover.group_by("post_id", "stream")
        .agg(pl.col("until", "heard").max())
        .filter(pl.col("heard") > covered - timedelta(seconds=ALIVE_S))
        .join(posts, on=["post_id", "stream"], how="semi")
        .join(since, on="stream")
        .join(limits, on=["post_id", "stream"], how="left")
        .join(unborn, on="post_id", how="left")
    )
    through = pl.min_horizontal(
        pl.col("until").fill_null(_NEVER), "limit", pl.when(pl.col("unborn") > pl.col("since")).then(_NEVER)
    )
    return dict(streams.group_by("stream").agg(through.min()).iter_rows())


def _gaps(cover: pl.DataFrame) -> pl.DataFrame:
    """post_id, stream, `lower` and `upper` of each gap: the end of what landed next below, 1970 where nothing did, and
    the time of what landed next above, null where nothing did."""
    is_boot = pl.any_horizontal([pl.col(name).ne_missing(pl.col(name).shift(1)) for name in _BOOT])
    is_gap = pl.col("low") > pl.when(is_boot).then(-1).otherwise(pl.col("high").shift(1)) + 1
    boots = cover.filter(is_gap).select(_BOOT).unique()
    # only few boots have gaps, and neighbours are costly to find
    runs = cover.with_columns(is_gap=is_gap).join(boots, on=_BOOT, how="semi", maintain_order="left")
    place = pl.struct(_BOOT).rle_id()
    return runs.select(
        "post_id",
        "stream",
        "is_gap",
        lower=pl.col("until").forward_fill().shift(1).over(place).fill_null(_NEVER),
        upper=pl.col("first_time").backward_fill().over(place),
    ).filter("is_gap")


def announcements(
    contiguous: Mapping[str, datetime],
    final_through: Mapping[str, datetime],
    streams: frozenset[str],
    covered: datetime,
    grace_s: float,
    now: datetime,
) -> pl.DataFrame:
    """Rows of ANNOUNCEMENTS for the streams whose final time advances, from what is announced so far
    (`final_through`) and what is `contiguous`."""
    by_grace = grace_through(covered, grace_s)
    rows = []
    for stream in sorted(streams):
        whole = _step(min(contiguous.get(stream, _NEVER), covered))
        through = max(whole, by_grace)
        if through > final_through.get(stream, _NEVER):
            reason = "contiguous" if whole >= by_grace else "grace"
            rows.append(
                {"stream": stream, "final_through": through, "announced_time": now, "reason": reason},
            )
    return pl.DataFrame(rows, schema=schema_of(ANNOUNCEMENTS))


def grace_through(covered: datetime, grace_s: float) -> datetime:
    """Windows that end until then are final whatever is missing."""
    return _step(max(covered - timedelta(seconds=grace_s), _NEVER))


def _step(moment: datetime) -> datetime:
    return moment - (moment - _NEVER) % timedelta(seconds=STEP_S)


def revised(
    existing: pl.DataFrame, wanted: pl.DataFrame, table: Table, final_through: Mapping[str, datetime]
) -> pl.DataFrame:
    """The wanted rows of a table of windows with their `revision`: that of the existing row, and one more when
    anything else in it differs (or there is none) and the window's end is announced as final (`final_through`, by
    stream)."""
    content = [name for name in table.schema.names if name not in (*table.key, "revision")]
    before = existing.select(
        *table.key, pl.lit(value=True).alias("is_known"), *[pl.col(name).alias(f"{name} before") for name in content],
        old="revision",
    )  # fmt: skip
    is_changed = pl.any_horizontal(
        pl.col("is_known").is_null(), *[pl.col(name).ne_missing(pl.col(f"{name} before")) for name in content]
    )
    end = pl.col("window_start") + pl.duration(seconds=pl.col("period_s"))
    # traffic has no quantities
    stream = pl.col("quantity").replace_strict(_STREAMS) if "quantity" in table.key else pl.lit("traffic")
    final = stream.replace_strict(dict(final_through), default=None, return_dtype=_TIME)
    is_final = (end <= final).fill_null(value=False)
    revision = pl.col("old").fill_null(0) + (is_changed & is_final).cast(pl.Int32)
    return (
        wanted.join(before, on=list(table.key), how="left")
        .with_columns(revision=revision.cast(pl.Int32))
        .select(wanted.columns)
    )
