-- A window's expected_count is what its period and the cadence make, and its completeness is the share of it that was
-- used (of traffic: that landed), at most 1.
-- Grain: one window
-- Key: table_name, post_id, cell, window_start
WITH counted AS (
    SELECT 'windows' AS table_name, post_id, quantity AS cell, window_start, period_s, value_count AS found_count,
        expected_count, completeness
    FROM lake.windows
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
    UNION ALL
    SELECT 'hours', post_id, quantity, window_start, period_s, value_count, expected_count, completeness
    FROM lake.hours
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
    UNION ALL
    SELECT 'flow_windows', post_id, direction, window_start, period_s, half_minutes, expected_count, completeness
    FROM lake.flow_windows
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
),
promised AS (
    SELECT *, period_s // CASE WHEN table_name = 'flow_windows' THEN 30 ELSE cadence_s END AS promised_count
    FROM counted
    LEFT JOIN main.quantities ON quantities.quantity = cell
)
SELECT table_name, post_id, cell, window_start, period_s, found_count, expected_count, promised_count, completeness
FROM promised
WHERE NOT coalesce(
    expected_count = promised_count AND is_near(completeness, least(found_count / promised_count, 1.0)), false
)
