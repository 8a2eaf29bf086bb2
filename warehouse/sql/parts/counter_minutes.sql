-- Minutes of counters, and of the twenty minutes before what is asked for, which growth looks back on.
-- Grain: one post, quantity and minute
-- Key: post_id, quantity, window_start
SELECT
    post_id, quantity, window_start, value_count > 0 AS is_used, first_value,
    CASE WHEN value_count > 0 THEN last_value END AS last_value,
    increase, plausible_high
FROM lake.minutes
JOIN main.quantities USING (quantity)
WHERE aggregation = 'counter difference'
    AND window_start >= time_bucket(INTERVAL 1 HOUR, $since) - INTERVAL 20 MINUTE
