-- Counters' minutes from the readings: first and last value, and growth between them.
-- Grain: one post, quantity and minute of a sampled hour
-- Key: post_id, quantity, window_start
-- Reads: sampled_values
WITH stepped AS (
    SELECT DISTINCT ON (post_id, quantity, event_time, digest)
        *,
        time_bucket(INTERVAL 1 MINUTE, event_time) AS minute
    FROM sampled_values
    WHERE aggregation = 'counter difference' AND used IS NOT NULL
),
steps AS (
    SELECT *,
        lag(used) OVER (PARTITION BY post_id, quantity, minute ORDER BY event_time, digest) AS before
    FROM stepped
)
SELECT
    post_id, quantity, minute AS window_start, true AS is_used,
    arg_min(used, (event_time, digest)) AS first_value,
    arg_max(used, (event_time, digest)) AS last_value,
    sum(CASE
        WHEN before IS NULL THEN 0
        WHEN used >= before THEN used - before
        WHEN plausible_high - before + used <= 40 THEN plausible_high - before + used
        ELSE used
    END) AS increase,
    any_value(plausible_high) AS plausible_high
FROM steps
GROUP BY ALL
