-- Values of whole hours, merged from the minutes' state by each quantity's own method.
-- Grain: one post, quantity and hour (UTC)
-- Key: post_id, quantity, window_start
-- Columns: windows
-- Column value_mean [as quantity]: Mean of the values used, whatever the quantity's method; null when circular.
-- Column increase [as quantity]: Growth of a counter, from the last value before the hour; resets add.
WITH growth AS (
    -- what a counter grew by adds up: the five-minute windows know restarts and impossible jumps
    SELECT post_id, quantity, time_bucket(INTERVAL 1 HOUR, window_start) AS hour, sum(increase) AS increase
    FROM lake.windows
    WHERE quantity IN (SELECT quantity FROM main.quantities WHERE aggregation = 'counter difference')
    GROUP BY ALL
),
merged AS (
    SELECT post_id, quantity, time_bucket(INTERVAL 1 HOUR, window_start) AS hour,
        sum(value_count)::BIGINT AS value_count,
        sum(flagged_count)::BIGINT AS flagged_count,
        sum(value_sum) AS value_sum,
        sum(sin_sum) AS sin_sum,
        sum(cos_sum) AS cos_sum,
        min(value_min) AS value_min,
        max(value_max) AS value_max,
        max(last_event_time) AS last_event_time
    FROM lake.minutes
    GROUP BY ALL
)
SELECT
    merged.hour AS window_start,
    3600::INTEGER AS period_s,
    post_id,
    quantity,
    CASE
        WHEN value_count = 0 THEN NULL
        WHEN aggregation = 'mean' THEN value_sum / value_count
        WHEN aggregation = 'circular' THEN (degrees(atan2(sin_sum, cos_sum)) + 360) % 360
        WHEN aggregation = 'sum' THEN value_sum
        WHEN aggregation = 'maximum' THEN value_max
        WHEN aggregation = 'counter difference' THEN growth.increase
    END AS value,
    3600::BIGINT // cadence_s AS expected_count,
    least(value_count / (3600 // cadence_s), 1.0) AS completeness,
    value_count,
    flagged_count,
    value_sum / nullif(value_count, 0) AS value_mean,
    value_min,
    value_max,
    growth.increase AS increase,
    last_event_time
FROM merged
JOIN main.quantities USING (quantity)
LEFT JOIN growth USING (post_id, quantity, hour)
