import marimo

app = marimo.App(width="medium", app_title="Air, traffic and the health of the fleet")


@app.cell(hide_code=True)
def _():
    import marimo as mo

    mo.md("""
    # Air, traffic and the health of the fleet

    Does the air follow the traffic, and can these numbers be trusted? One day in Hong Kong, the newest that the
    catalogue holds most of.
    """)
    return (mo,)


@app.cell
def _():
    import matplotlib.pyplot as plt
    import polars as pl

    import warehouse
    from contracts.settings import SettingError

    db = warehouse.connect()  # LAMPLIGHT_DATA says where; times are UTC
    _days = db.sql("""
        SELECT window_start_hk::DATE AS day FROM flow_windows
        GROUP BY day ORDER BY count(DISTINCT window_start) >= 48 DESC, day DESC
    """).fetchall()
    if not _days:
        raise SettingError("this catalogue holds no traffic yet: run the pipelines, or change LAMPLIGHT_DATA")
    day = _days[0][0]
    return day, db, pl, plt


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Pollution against traffic

    Quarter hours of every post that measures both. Nitrogen dioxide comes out of exhausts and follows the flow. Ozone
    is made by the sun and used up by what exhausts emit: at noon it is high whatever drives by, in the evening rush it
    goes. Fine particles are mostly the region's.
    """)
    return


@app.cell
def _(day, db):
    together = db.sql(
        """
        WITH flows AS (
            SELECT post_id, window_start, sum(flow_veh_h) AS flow_veh_h
            FROM traffic WHERE period_s = 900 GROUP BY ALL
        )
        SELECT
            post_id, quantity, value, flow_veh_h,
            hour(window_start_hk) + minute(window_start_hk) / 60 AS hour_hk
        FROM air  -- null below 75 % data capture
        JOIN flows USING (post_id, window_start)
        WHERE period_s = 900 AND quantity IN ('no2_ug_m3', 'o3_ug_m3', 'pm2_5_ug_m3') AND value IS NOT NULL
            AND window_start_hk::DATE = $day
        """,
        params={"day": day},
    ).pl()
    return (together,)


@app.cell(hide_code=True)
def _(day, pl, plt, together):
    _names = {"no2_ug_m3": "NO\N{SUBSCRIPT TWO}", "o3_ug_m3": "O\N{SUBSCRIPT THREE}", "pm2_5_ug_m3": "PM2.5"}
    _colours = {"no2_ug_m3": "#D55E00", "o3_ug_m3": "#0072B2", "pm2_5_ug_m3": "#7A5195"}
    _lines = {"no2_ug_m3": "-", "o3_ug_m3": "--", "pm2_5_ug_m3": "-."}
    course, (_above, _below) = plt.subplots(
        2, 1, figsize=(10, 6), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    for _quantity, _name in _names.items():
        _rows = together.filter(quantity=_quantity)
        _mid = (
            _rows.group_by("hour_hk")
            .agg(
                pl.col("value").median().alias("median"),
                pl.col("value").quantile(0.25).alias("low"),
                pl.col("value").quantile(0.75).alias("high"),
            )
            .sort("hour_hk")
        )
        _above.plot(_mid["hour_hk"], _mid["median"], _lines[_quantity], color=_colours[_quantity], label=_name)
        _above.fill_between(_mid["hour_hk"], _mid["low"], _mid["high"], color=_colours[_quantity], alpha=0.15)
    _flow = together.filter(quantity="no2_ug_m3").group_by("hour_hk").agg(pl.col("flow_veh_h").median()).sort("hour_hk")
    _below.fill_between(_flow["hour_hk"], 0, _flow["flow_veh_h"], color="#777777", alpha=0.5, step="post")
    _above.set_ylabel("concentration, \N{MICRO SIGN}g/m\N{SUPERSCRIPT THREE}")
    _above.set_ylim(bottom=0)
    _above.legend(frameon=False, ncols=3, title="median of the posts; band: half of them")
    _below.set_ylabel("median flow, veh/h")
    _below.set_xlabel("Hour of the day, Hong Kong time")
    _below.set_xlim(0, 24)
    _below.set_xticks(range(0, 25, 3))
    for _panel in (_above, _below):
        _panel.grid(color="#e4e4e4", linewidth=0.6)
        _panel.spines[["top", "right"]].set_visible(False)
    _count = together["post_id"].n_unique()
    course.suptitle(f"Air beside the road and the traffic on it, {day:%-d %B %Y}, {_count} posts")
    course
    return


@app.cell(hide_code=True)
def _(day, pl, plt, together):
    _titles = {
        "no2_ug_m3": "Nitrogen dioxide",
        "o3_ug_m3": "Ozone",
        "pm2_5_ug_m3": "Fine particles (PM2.5)",
    }
    against, _panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
    for _panel, (_quantity, _title) in zip(_panels, _titles.items(), strict=True):
        _rows = together.filter(pl.col("quantity") == _quantity, pl.col("flow_veh_h") > 0)
        _cells = _panel.hexbin(
            _rows["flow_veh_h"], _rows["value"], gridsize=28, mincnt=1, cmap="cividis_r", bins="log", linewidths=0.1
        )
        _rank = _rows.select(pl.corr("flow_veh_h", "value", method="spearman")).item() if _rows.height > 2 else 0
        _panel.set_title(f"{_title}\nSpearman's rank correlation {_rank:.2f}", fontsize=10)
        _panel.set_xlabel("flow past the post, veh/h")
        _panel.spines[["top", "right"]].set_visible(False)
    _panels[0].set_ylabel("concentration, \N{MICRO SIGN}g/m\N{SUPERSCRIPT THREE}")
    against.colorbar(_cells, ax=_panels, label="quarter hours of a post", pad=0.01, format="{x:.0f}")
    against.suptitle(f"Pollution against traffic, {day:%-d %B %Y}")
    against
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## The health of the fleet

    What share of the promised values was used, post by post and hour by hour? White is an hour of which nothing came. A
    value counts as used with flag 1 or 2: lost messages, sentinels and suspect values all lower it.
    """)
    return


@app.cell
def _(day, db):
    health = db.sql(
        """
        WITH measured AS (
            SELECT post_id, window_start_hk, completeness FROM value_windows WHERE period_s = 3600
            UNION ALL
            SELECT post_id, window_start_hk, completeness FROM traffic WHERE period_s = 3600
        ),
        hours AS (
            SELECT post_id, hour(window_start_hk) AS hour_hk, avg(completeness) AS completeness
            FROM measured WHERE window_start_hk::DATE = $day GROUP BY ALL
        )
        SELECT post_id, area, hour_hk, completeness
        FROM lampposts
        LEFT JOIN hours USING (post_id)
        WHERE kind = 'lamppost'
        ORDER BY area, post_id, hour_hk
        """,
        params={"day": day},
    ).pl()
    return (health,)


@app.cell(hide_code=True)
def _(day, health, plt):
    _posts = health.select("area", "post_id").unique(maintain_order=True)
    _cells = {(post, hour): share for post, hour, share in health.select("post_id", "hour_hk", "completeness").rows()}
    _table = [[_cells.get((post, hour), float("nan")) for hour in range(24)] for post in _posts["post_id"]]
    completeness, _panel = plt.subplots(figsize=(9, min(11, 1.6 + 0.075 * len(_table))), layout="constrained")
    _colours = plt.get_cmap("viridis").with_extremes(bad="white", under="#440154")
    _image = _panel.imshow(_table, aspect="auto", cmap=_colours, vmin=0.5, vmax=1, interpolation="nearest")
    _areas = _posts.with_row_index("row").group_by("area", maintain_order=True).agg("row")
    for _area, _rows in _areas.rows():
        _panel.axhline(_rows[0] - 0.5, color="black", linewidth=0.8)
    _middles = [(rows[0] + rows[-1]) / 2 for rows in _areas["row"].to_list()]
    _panel.set_yticks(_middles, [area.replace("/", "/\n") for area in _areas["area"]])
    _panel.tick_params(axis="y", length=0)
    _panel.set_xticks(range(0, 24, 3))
    _panel.set_xlabel("Hour that begins, Hong Kong time")
    _panel.set_title(f"Completeness of {len(_table)} posts, {day:%-d %B %Y} (one line each)")
    completeness.colorbar(_image, label="share of promised values that was used", extend="min", pad=0.01)
    completeness
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    Who said nothing for the longest time? Times are the last birth or heartbeat; null: none in the whole lake.
    """)
    return


@app.cell
def _(db):
    db.sql("""
        WITH heard AS (SELECT post_id, max(event_time) AS last_heard_time FROM device_status GROUP BY post_id)
        SELECT
            post_id, area, name_en, strftime(hk_time(last_heard_time), '%Y-%m-%d %H:%M') AS last_heard_hk,
            round(date_diff('second', last_heard_time, max(last_heard_time) OVER ()) / 60) AS silent_min
        FROM lampposts LEFT JOIN heard USING (post_id)
        WHERE kind = 'lamppost'
        ORDER BY last_heard_time NULLS FIRST LIMIT 8
    """).pl()
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What was flagged

    A value is never removed: it keeps its row and gets a QARTOD flag, by its message alone or by the hour before it
    ([how](../quality.md)).
    """)
    return


@app.cell
def _(day, db):
    flagged = db.sql(
        """
        SELECT
            quantity, count(*) AS count,
            1e4 * count(*) FILTER (flag = 3) / count(*) AS suspect,
            1e4 * count(*) FILTER (flag = 4) / count(*) AS fail,
            1e4 * count(*) FILTER (flag = 9) / count(*) AS missing
        FROM observations WHERE hk_time(event_time)::DATE = $day
        GROUP BY quantity ORDER BY suspect + fail + missing
        """,
        params={"day": day},
    ).pl()
    return (flagged,)


@app.cell(hide_code=True)
def _(day, flagged, plt):
    flags, _panel = plt.subplots(figsize=(9, 0.3 * flagged.height + 1.6), layout="constrained")
    _left = [0.0] * flagged.height
    _styles = {
        "suspect": ("suspect (3)", "#E69F00", ""),
        "fail": ("fail (4)", "#A02000", "//"),
        "missing": ("missing (9): sentinels", "#999999", ".."),
    }
    for _name, (_label, _colour, _hatch) in _styles.items():
        _panel.barh(
            flagged["quantity"],
            flagged[_name],
            left=_left,
            color=_colour,
            hatch=_hatch,
            edgecolor="white",
            label=_label,
        )
        _left = [low + share for low, share in zip(_left, flagged[_name], strict=True)]
    _panel.set_xlabel("values of ten thousand")
    _panel.legend(frameon=False, title="QARTOD flag")
    _panel.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    _panel.set_axisbelow(True)
    _panel.spines[["top", "right"]].set_visible(False)
    _panel.set_title(f"Flagged values, {day:%-d %B %Y}, of {flagged['count'].sum():,}")
    flags
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## What was lost, and why

    `losses_yesterday` asks the ledger, which counts every seq that a post ever gave; here of the day above.
    """)
    return


@app.cell
def _(day, db):
    losses = db.sql(
        "SELECT * FROM losses_yesterday_since(timezone('Asia/Hong_Kong', $day::TIMESTAMP))", params={"day": day}
    ).pl()
    return (losses,)


@app.cell(hide_code=True)
def _(losses, pl):
    (
        losses.group_by("reason")
        .agg(
            pl.col("lost_count").sum().alias("messages"),
            pl.col("post_id").n_unique().alias("posts"),
            pl.col("post_id").sort_by("lost_count", descending=True).first().alias("most_at"),
            pl.col("lost_count").max().alias("there"),
        )
        .sort("messages", descending=True)
    )
    return


if __name__ == "__main__":
    app.run()
