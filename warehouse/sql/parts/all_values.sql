-- Windows of 5 and 60 minutes of the tables of windows and hours, and quarter hours and days by UTC and by Hong Kong's
-- clocks, merged from them: the one way to compute a longer window. A period that the table's windows do not fill is not
-- there. Reads a day more than asked for, for what looks back.
-- Grain: one post, quantity, period, zone and window
-- Key: post_id, quantity, period_s, zone, window_start
-- Reads: final
WITH
-- a filter on a quarter hour or a day does not become one on what lies in it; one on these lists does, by the join
moments AS (
    SELECT unnest(generate_series(first_time, last_time, INTERVAL 1 MINUTE)) AS part_start
    FROM main.snapshot
    WHERE table_name = 'windows'
),
days AS (
    SELECT part_start, time_bucket(INTERVAL 1 DAY, part_start, origin) AS day, zone
    FROM (
        SELECT unnest(generate_series(first_time, last_time, INTERVAL 1 HOUR)) AS part_start
        FROM main.snapshot
        WHERE table_name = 'hours'
    )
    -- unions, not VALUES: then a table is not read for what nobody asks for
    CROSS JOIN (
        SELECT 'UTC' AS zone, TIMESTAMPTZ '1970-01-01 00:00:00Z' AS origin
        UNION ALL SELECT 'Asia/Hong_Kong', TIMESTAMPTZ '1970-01-01 16:00:00Z'
    )
),
parts AS (
    SELECT windows.* REPLACE (time_bucket(INTERVAL 15 MINUTE, part_start) AS window_start, 900 AS period_s), 'UTC' AS zone
    FROM lake.windows
    JOIN moments ON part_start = window_start
    WHERE 900 % windows.period_s = 0
    UNION ALL BY NAME
    -- of a lake whose windows are shorter
    SELECT windows.* REPLACE (time_bucket(INTERVAL 5 MINUTE, part_start) AS window_start, 300 AS period_s), 'UTC' AS zone
    FROM lake.windows
    JOIN moments ON part_start = window_start
    WHERE windows.period_s < 300 AND 300 % windows.period_s = 0
    UNION ALL BY NAME
    SELECT hours.* REPLACE (day AS window_start, 86400 AS period_s), zone
    FROM lake.hours
    JOIN days ON part_start = window_start
),
merged AS (
    SELECT
        post_id, quantity, period_s, zone, window_start,
        sum(value_count)::BIGINT AS value_count,
        sum(flagged_count)::BIGINT AS flagged_count,
        sum(value_sum) AS value_sum,
        sum(value_sum_squares) AS value_sum_squares,
        sum(energy_sum) AS energy_sum,
        sum(sin_sum) AS sin_sum,
        sum(cos_sum) AS cos_sum,
        sum(unit_count)::BIGINT AS unit_count,
        sum(sin_speed_sum_ms) AS sin_speed_sum_ms,
        sum(cos_speed_sum_ms) AS cos_speed_sum_ms,
        sum(vector_count)::BIGINT AS vector_count,
        min(value_min) AS value_min,
        max(value_max) AS value_max,
        sum(increase) AS increase,
        max(last_event_time) AS last_event_time,
        sum(revision)::INTEGER AS revision
    FROM parts
    GROUP BY ALL
),
states AS (
    SELECT * FROM merged
    UNION ALL BY NAME
    SELECT * EXCLUDE (value, expected_count, completeness, first_value, last_value, last_used_time)
        REPLACE (300 AS period_s), 'UTC' AS zone
    FROM lake.windows
    WHERE windows.period_s = 300
    UNION ALL BY NAME
    SELECT * EXCLUDE (value, expected_count, completeness, first_value, last_value, last_used_time)
        REPLACE (3600 AS period_s), 'UTC' AS zone
    FROM lake.hours
)
SELECT
    states.*,
    make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    stream,
    CASE
        WHEN value_count = 0 THEN NULL
        WHEN aggregation = 'mean' THEN value_sum / value_count
        WHEN aggregation = 'circular' AND unit_count = 0 THEN 0
        WHEN aggregation = 'circular' AND sqrt(sin_sum * sin_sum + cos_sum * cos_sum) > 1e-9 * unit_count
        THEN degrees(atan2(sin_sum, cos_sum)) + CASE WHEN atan2(sin_sum, cos_sum) <= 0 THEN 360 ELSE 0 END
        WHEN aggregation = 'energy mean' THEN 10 * log10(energy_sum / value_count)
        WHEN aggregation = 'sum' THEN value_sum
        WHEN aggregation = 'maximum' THEN value_max
        WHEN aggregation = 'counter difference' THEN increase
    END AS value,
    value_sum / nullif(value_count, 0) AS value_mean,
    CASE WHEN value_count > 1 THEN
        sqrt(greatest(0, value_sum_squares - value_sum * value_sum / value_count) / (value_count - 1))
    END AS value_sd,
    period_s // cadence_s AS expected_count,
    least(value_count / (period_s // cadence_s), 1.0)::DOUBLE AS completeness,
    coalesce(window_start + to_seconds(period_s) <= final_through, false) AS is_final,
    data_through
FROM states
JOIN main.quantities USING (quantity)
LEFT JOIN final USING (stream)
WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since) - INTERVAL 24 HOUR
