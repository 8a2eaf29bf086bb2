-- Weather of windows of 5, 15 and 60 minutes (choose by period_s) with a column per quantity, by each one's own
-- method; counts and spreads are in value_windows.
-- Grain: one post, period and window
-- Key: post_id, period_s, window_start
-- Columns: windows
-- Wide: weather
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column completeness [1]: The least of the quantities' value_count / expected_count.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the five-minute windows of a quantity changed after they were announced final.
-- Reads: merged_values
SELECT
    window_start, window_start_hk, period_s, post_id,
    $wide,
    min(completeness) AS completeness, any_value(is_final) AS is_final, max(revision) AS revision,
    any_value(data_through) AS data_through, max(last_event_time) AS last_event_time
FROM merged_values
WHERE stream = 'weather' AND window_start >= time_bucket(INTERVAL 1 HOUR, $since)
GROUP BY window_start, window_start_hk, period_s, post_id
