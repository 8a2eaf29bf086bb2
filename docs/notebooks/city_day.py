import marimo

app = marimo.App(width="medium", app_title="A day of the city")


@app.cell(hide_code=True)
def _():
    import marimo as mo

    mo.md("""
    # A day of the city

    Where and when did traffic stand still, and from where did the wind blow? One day in Hong Kong, the newest that the
    catalogue holds most of, straight from SQL: nothing is exported first, and the pipelines write on meanwhile.
    """)
    return (mo,)


@app.cell
def _():
    import json
    import math

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
    return day, db, json, math, pl, plt


@app.cell(hide_code=True)
def _(day, db, mo):
    _posts, _vehicles = db.sql(
        "SELECT count(DISTINCT post_id), sum(vehicle_count) FROM flow_windows WHERE window_start_hk::DATE = $day",
        params={"day": day},
    ).fetchall()[0]
    mo.md(f"""
    ## Congestion

    {day:%A, %-d %B %Y}: {_posts} posts counted {_vehicles:,} passages of vehicles. Levels of service are the Transport
    Department's: below 15 km/h congested, below 30 slow; on roads with a limit of 70 km/h or more below 25 and 50.
    A post shows the worse of its two directions, by the space-mean speed of the hour. Here both rush hours; grey lines
    are the districts' boundaries, which meet in the harbour.
    """)
    return


@app.cell
def _(day, db):
    levels = db.sql(
        """
        SELECT
            post_id, longitude, latitude, hour(window_start_hk) AS hour_hk,
            arg_min(level_of_service, space_mean_speed_kmh / speed_limit_kmh) AS level
        FROM traffic
        JOIN lampposts USING (post_id)
        WHERE period_s = 3600 AND window_start_hk::DATE = $day AND level_of_service IS NOT NULL
        GROUP BY ALL
        """,
        params={"day": day},
    ).pl()
    posts = db.sql("""
        SELECT post_id, area, longitude, latitude FROM lampposts
        WHERE kind = 'lamppost' AND list_contains(streams, 'traffic')
    """).pl()
    # there when the deployer set LAMPLIGHT_DISTRICTS
    boundaries = db.sql("SELECT geometry FROM districts WHERE geometry IS NOT NULL").pl()["geometry"].to_list()
    return boundaries, levels, posts


@app.cell(hide_code=True)
def _(boundaries, day, json, levels, math, pl, plt, posts):
    # Okabe and Ito's colours, which colour-blind people tell apart, and shapes: colour is not the only sign
    _styles = {"smooth": ("#56B4E9", "o", 22), "slow": ("#E69F00", "s", 34), "congested": ("#A02000", "^", 62)}
    _hours = [hour for hour in (7, 8, 9, 17, 18, 19) if hour in levels["hour_hk"]]
    _hours = _hours or sorted(set(levels["hour_hk"]))[:6]
    _rows = -(-len(_hours) // 3)
    congestion, _grid = plt.subplots(
        _rows, 3, figsize=(11, 3.1 * _rows + 1), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    _areas = posts.group_by("area").agg(pl.col("longitude").mean(), pl.col("latitude").max())
    for _panel, _hour in zip(_grid.flat, _hours, strict=False):
        _shown = levels.filter(hour_hk=_hour)
        _silent = posts.join(_shown, on="post_id", how="anti")
        _panel.scatter(_silent["longitude"], _silent["latitude"], s=14, c="none", edgecolors="#777777", label="no data")
        for _level, (_colour, _marker, _size) in _styles.items():
            _some = _shown.filter(level=_level)
            _panel.scatter(
                _some["longitude"],
                _some["latitude"],
                s=_size,
                c=_colour,
                marker=_marker,
                edgecolors="white",
                linewidths=0.5,
                label=_level,
            )
        _worse = _shown.filter(pl.col("level") != "smooth").height
        _panel.set_title(f"{_hour:02d}-{_hour + 1:02d} h: {_worse} of {_shown.height} posts not smooth", fontsize=10)
        for _name, _longitude, _latitude in _areas.iter_rows():
            _panel.annotate(
                _name.replace("/", "/\n"),
                (_longitude, _latitude),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color="#333333",
            )
        for _text in boundaries:
            _shape = json.loads(_text)
            for _part in _shape["coordinates"] if _shape["type"] == "MultiPolygon" else [_shape["coordinates"]]:
                for _ring in _part:
                    _panel.plot(*zip(*_ring, strict=True), color="#b5b5b5", linewidth=0.7, zorder=0)
        _panel.set_xlim(posts["longitude"].min() - 0.012, posts["longitude"].max() + 0.012)
        _panel.set_ylim(posts["latitude"].min() - 0.012, posts["latitude"].max() + 0.016)
        _panel.set_aspect(1 / math.cos(math.radians(22.3)))
        _panel.tick_params(labelsize=8)
    for _panel in _grid.flat[len(_hours) :]:
        _panel.set_visible(False)
    for _panel in _grid[-1]:
        _panel.set_xlabel("Longitude, \N{DEGREE SIGN}E", fontsize=9)
    for _panel in _grid[:, 0]:
        _panel.set_ylabel("Latitude, \N{DEGREE SIGN}N", fontsize=9)
    congestion.suptitle(f"Level of service at the posts, {day:%-d %B %Y}, Hong Kong time", fontsize=13)
    congestion.legend(
        *_grid.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    congestion
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Which roads, and when

    `travel_conditions` is a ready question: each road, direction and hour, and how it compares with the same hour of
    the same weekday in the other stored weeks. Here the twelve roads that lost most of their speed in some hour.
    """)
    return


@app.cell
def _(day, db):
    roads = db.sql(
        """
        WITH shares AS (
            SELECT road_en || ', ' || direction AS road, hour_hk, speed_kmh / speed_limit_kmh AS share_of_limit
            FROM travel_conditions
            WHERE day = $day AND speed_kmh IS NOT NULL AND completeness >= 0.5
        ),
        worst AS (
            SELECT road, min(share_of_limit) AS worst FROM shares GROUP BY road ORDER BY worst LIMIT 12
        )
        SELECT road, hour_hk, share_of_limit FROM shares JOIN worst USING (road) ORDER BY worst, road, hour_hk
        """,
        params={"day": day},
    ).pl()
    return (roads,)


@app.cell(hide_code=True)
def _(day, math, plt, roads):
    _names = roads["road"].unique(maintain_order=True).to_list()
    _shares = {(road, hour): share for road, hour, share in roads.select("road", "hour_hk", "share_of_limit").rows()}
    _table = [[_shares.get((road, hour), math.nan) for hour in range(24)] for road in _names]
    by_road, _panel = plt.subplots(figsize=(10, 0.32 * len(_names) + 1.6), layout="constrained")
    _colours = plt.get_cmap("cividis").with_extremes(bad="#eeeeee")
    _image = _panel.imshow(_table, aspect="auto", cmap=_colours, vmin=0.4, vmax=1.1)
    _panel.set_xticks(range(24), [f"{hour:02d}" for hour in range(24)])
    _panel.set_yticks(range(len(_names)), _names, fontsize=9)
    _panel.set_xlabel("Hour that begins, Hong Kong time")
    _panel.set_title(f"Speed as a share of the limit, {day:%-d %B %Y}: the roads that slowed down the most")
    by_road.colorbar(_image, label="speed / speed limit", pad=0.01)
    by_road
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Wind

    The view `wind` has scalar and vector means side by side. A petal points to where the wind came from; its length is
    the share of the five-minute means, calm ones in the middle.
    """)
    return


@app.cell
def _(day, db):
    winds = db.sql(
        """
        SELECT
            -- sixteen sectors, the first around north
            floor((direction_deg + 11.25) % 360 / 22.5)::INTEGER AS sector,
            CASE WHEN mean_speed_ms < 2 THEN 0 WHEN mean_speed_ms < 4 THEN 1 WHEN mean_speed_ms < 6 THEN 2 ELSE 3 END
                AS speed_class,
            direction_deg = 0 AS is_calm, count(*) AS count
        FROM wind
        WHERE period_s = 300 AND window_start_hk::DATE = $day AND direction_deg IS NOT NULL
            AND mean_speed_ms IS NOT NULL
        GROUP BY ALL
        """,
        params={"day": day},
    ).pl()
    return (winds,)


@app.cell(hide_code=True)
def _(day, math, pl, plt, winds):
    _total = max(1, winds["count"].sum())
    _calm = winds.filter("is_calm")["count"].sum() / _total
    rose, _panel = plt.subplots(figsize=(7, 6.4), subplot_kw={"projection": "polar"}, layout="constrained")
    _panel.set_theta_zero_location("N")
    _panel.set_theta_direction(-1)
    _base = [100 * _calm / 16] * 16
    _names = ("below 2 m/s", "2 to 4 m/s", "4 to 6 m/s", "6 m/s and more")
    for _class, (_name, _colour) in enumerate(zip(_names, ("#c6dbef", "#6baed6", "#2171b5", "#08306b"), strict=True)):
        _counts = dict(
            winds.filter(pl.col("speed_class") == _class, ~pl.col("is_calm")).select("sector", "count").rows()
        )
        _shares = [100 * _counts.get(sector, 0) / _total for sector in range(16)]
        _panel.bar(
            [sector * math.pi / 8 for sector in range(16)],
            _shares,
            width=0.34,
            bottom=_base,
            color=_colour,
            edgecolor="white",
            linewidth=0.5,
            label=_name,
        )
        _base = [low + share for low, share in zip(_base, _shares, strict=True)]
    _panel.set_xticks([sector * math.pi / 4 for sector in range(8)], ["N", "NE", "E", "SE", "S", "SW", "W", "NW"])
    _panel.yaxis.set_major_formatter("{x:.0f} %")
    _panel.set_rlabel_position(11.25)
    _panel.tick_params(axis="y", labelsize=8)
    _panel.grid(color="#cccccc", linewidth=0.6)
    _panel.set_axisbelow(True)
    _panel.set_title(f"Where the wind came from, {day:%-d %B %Y}\n{_total:,} means of five minutes, {_calm:.1%} calm")
    rose.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    rose
    return


@app.cell(hide_code=True)
def _(mo):
    mo.md("""
    ## Rain on the roads

    `rain_and_speed` compares quarter hours with rain at the very post with dry ones of the same post, direction and
    hour of day. A single day is little: there may be no dry counterpart (`compared_count`), and what one post alone saw
    (`post_count`) may be its rain gauge. Ask it of a month.
    """)
    return


@app.cell
def _(db):
    db.sql("""
        SELECT area, rain_class, quarter_hours, post_count, compared_count,
            round(median_speed_kmh, 1) AS median_speed_kmh, round(difference_kmh, 1) AS difference_kmh,
            round(difference_pct, 1) AS difference_pct
        FROM rain_and_speed WHERE road_en = 'all roads' AND rain_class <> 'dry' ORDER BY area, from_mm_h
    """).pl()
    return


if __name__ == "__main__":
    app.run()
