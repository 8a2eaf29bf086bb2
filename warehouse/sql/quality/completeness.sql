-- How much of what a post's sensors promise by the registry has landed, hour by hour: an hour without any reading is
-- there too. From the first hour that any reading lies in until data_through; of the hour that is running, what is due
-- by then is expected, so that messages on their way are missing for some seconds. Of traffic half-minutes are counted,
-- under vehicle_count, whether their lanes are flagged or not.
-- Grain: one post, quantity and hour
-- Key: post_id, quantity, window_start
-- Reads: promises, traffic_hours
-- Column window_start [UTC]: Start of the hour.
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column post_id: Lamppost.
-- Column stream: Stream that carries the quantity.
-- Column quantity: Name in the table of quantities.
-- Column expected_count [1]: Values that the cadence promises.
-- Column landed_count [1]: Values that landed, used or not.
-- Column used_count [1]: Values used: flags 1 and 2.
-- Column completeness [1]: used_count / expected_count, at most 1.
WITH landed AS (
    SELECT post_id, quantity, window_start, value_count AS used_count, value_count + flagged_count AS landed_count
    FROM lake.hours
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
    UNION ALL
    SELECT post_id, 'vehicle_count', window_start, half_minutes, half_minutes FROM traffic_hours
),
grid AS (
    SELECT
        data_through,
        unnest(generate_series(
            (SELECT min(window_start) FROM landed),
            time_bucket(INTERVAL 1 HOUR, data_through),
            INTERVAL 1 HOUR
        )) AS window_start
    FROM main.state
),
due AS (
    SELECT
        post_id, stream, quantity, window_start,
        sum(floor(
            epoch(least(window_start + INTERVAL 1 HOUR, valid_to, data_through) - greatest(window_start, valid_from))
            / cadence_s
        ))::BIGINT AS expected_count
    FROM promises
    JOIN grid
        ON valid_from < least(window_start + INTERVAL 1 HOUR, data_through)
        AND (valid_to IS NULL OR window_start < valid_to)
    GROUP BY ALL
)
SELECT
    window_start, make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    post_id, stream, quantity, expected_count,
    coalesce(landed_count, 0)::BIGINT AS landed_count,
    coalesce(used_count, 0)::BIGINT AS used_count,
    least(coalesce(used_count, 0) / expected_count, 1.0)::DOUBLE AS completeness
FROM due
LEFT JOIN landed USING (post_id, quantity, window_start)
WHERE expected_count > 0
