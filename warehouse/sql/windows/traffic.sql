-- Traffic of windows of 5, 15 and 60 minutes (choose by period_s): flow, speeds, occupancy, classes, level of service
-- by Hong Kong's colours: 15 and 30 km/h, on roads with a limit of 70 km/h or more 25 and 50. Exact: never for
-- publication.
-- Grain: one post, direction, period and window
-- Key: post_id, direction, period_s, window_start
-- Columns: flow_windows
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the quarter hours in it (or around it) changed after they were announced final.
-- Reads: final
-- Column level_of_service: congested, slow or smooth, by space_mean_speed_kmh, else mean_speed_kmh; null without either.
-- Column colour: The level's colour on the Transport Department's maps.
-- Column speed_limit_kmh [km/h]: Limit by the registry when the window began; null: not registered, no level.
WITH minutes AS (
    SELECT unnest(generate_series(first_time, last_time, INTERVAL 1 MINUTE)) AS part_start
    FROM main.snapshot
    WHERE table_name = 'flow_minutes'
),
quarters AS (
    SELECT unnest(generate_series(first_time, last_time, INTERVAL 15 MINUTE)) AS part_start
    FROM main.snapshot
    WHERE table_name = 'flow_windows'
),
-- a filter on an hour does not become one on the quarters in it; one on these lists does, by the join
parts AS (
    SELECT flow_minutes.* REPLACE (time_bucket(INTERVAL 5 MINUTE, part_start) AS window_start), 300 AS period_s
    FROM lake.flow_minutes
    JOIN minutes ON part_start = window_start
    UNION ALL BY NAME
    SELECT post_id, direction, five AS window_start, 300 AS period_s, revision
    FROM lake.flow_windows
    JOIN (
        SELECT part_start, part_start + unnest([INTERVAL 0 MINUTE, INTERVAL 5 MINUTE, INTERVAL 10 MINUTE]) AS five
        FROM quarters
    ) ON part_start = window_start
    UNION ALL BY NAME
    SELECT * REPLACE (900 AS period_s) FROM lake.flow_windows
    UNION ALL BY NAME
    SELECT flow_windows.* REPLACE (time_bucket(INTERVAL 1 HOUR, part_start) AS window_start, 3600 AS period_s)
    FROM lake.flow_windows
    JOIN quarters ON part_start = window_start
),
merged AS (
    SELECT
        post_id, direction, period_s, window_start,
        sum(half_minutes)::BIGINT AS half_minutes,
        sum(lane_summaries)::BIGINT AS lane_summaries,
        sum(flagged_count)::BIGINT AS flagged_count,
        sum(vehicle_count)::BIGINT AS vehicle_count,
        sum(motorcycle_count)::BIGINT AS motorcycle_count,
        sum(private_car_count)::BIGINT AS private_car_count,
        sum(taxi_count)::BIGINT AS taxi_count,
        sum(light_goods_count)::BIGINT AS light_goods_count,
        sum(heavy_goods_count)::BIGINT AS heavy_goods_count,
        sum(bus_count)::BIGINT AS bus_count,
        sum(other_count)::BIGINT AS other_count,
        sum(speed_count)::BIGINT AS speed_count,
        sum(speed_sum_kmh) AS speed_sum_kmh,
        sum(inverse_speed_sum_h_km) AS inverse_speed_sum_h_km,
        sum(inverse_speed_count)::BIGINT AS inverse_speed_count,
        sum(occupancy_sum_pct) AS occupancy_sum_pct,
        sum(occupancy_count)::BIGINT AS occupancy_count,
        max(last_event_time) AS last_event_time,
        sum(revision)::INTEGER AS revision
    FROM parts
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
    GROUP BY ALL
    HAVING count(half_minutes) > 0
),
speeds AS (
    SELECT
        *,
        vehicle_count * 3600.0::DOUBLE / nullif(half_minutes * 30, 0) AS flow_veh_h,
        CASE WHEN speed_count > 0 THEN speed_sum_kmh / speed_count END AS mean_speed_kmh,
        CASE WHEN inverse_speed_sum_h_km > 0 THEN inverse_speed_count / inverse_speed_sum_h_km END
            AS space_mean_speed_kmh,
        occupancy_sum_pct / nullif(occupancy_count, 0) AS occupancy_pct,
        coalesce(space_mean_speed_kmh, mean_speed_kmh) AS speed_kmh
    FROM merged
),
limits AS (
    SELECT post_id, direction, speed_limit_kmh, valid_from, valid_to
    FROM city.directions
    JOIN city.lamppost_entries USING (post_id, valid_from)
)
SELECT
    window_start, make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    period_s, speeds.post_id, speeds.direction, flow_veh_h, mean_speed_kmh, space_mean_speed_kmh,
    occupancy_pct, step AS level_of_service, colour, speed_limit_kmh,
    vehicle_count, motorcycle_count, private_car_count, taxi_count, light_goods_count, heavy_goods_count, bus_count,
    other_count, half_minutes, lane_summaries, flagged_count, speed_count,
    (period_s // 30)::BIGINT AS expected_count,
    least(half_minutes / (period_s // 30), 1.0)::DOUBLE AS completeness,
    coalesce(window_start + to_seconds(period_s) <= final_through, false) AS is_final,
    coalesce(revision, 0) AS revision, data_through,
    last_event_time
FROM speeds
LEFT JOIN final ON stream = 'traffic'
LEFT JOIN limits
    ON limits.post_id = speeds.post_id AND limits.direction = speeds.direction
    AND window_start >= limits.valid_from AND (limits.valid_to IS NULL OR window_start < limits.valid_to)
LEFT JOIN main.scales
    ON scale = CASE WHEN speed_limit_kmh >= 70 THEN 'strategic roads' WHEN speed_limit_kmh > 0 THEN 'urban roads' END
    AND speed_kmh >= low AND (high IS NULL OR speed_kmh < high)
