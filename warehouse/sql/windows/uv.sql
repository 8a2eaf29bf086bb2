-- UV index of windows of 5, 15 and 60 minutes (choose by period_s); the Observatory's two are 900 and 3600.
-- Grain: one post, period and window
-- Key: post_id, period_s, window_start
-- Column window_start [UTC]: Start of the window [start, start + period).
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column period_s [s]: Length of the window.
-- Column post_id: Lamppost.
-- Column uv_index [1]: Mean index.
-- Column uv_index_max [1]: Greatest value used.
-- Column category: Step of the scale uv that the mean, rounded to a whole number, lies in.
-- Column value_count [1]: Values used.
-- Column flagged_count [1]: Values left out: flags 3, 4 and 9.
-- Column expected_count [1]: Values that the cadence promises for the whole window.
-- Column completeness [1]: value_count / expected_count, at most 1.
-- Column last_event_time [UTC]: Event time of the newest value, used or not.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the five-minute windows in it changed after they were announced final, in all.
-- Reads: merged_values
SELECT
    window_start, window_start_hk, period_s, post_id, value AS uv_index, value_max AS uv_index_max, step AS category,
    value_count, flagged_count, expected_count, completeness,
    is_final, revision, data_through, last_event_time
FROM merged_values
LEFT JOIN main.scales ON scale = 'uv' AND round(value) >= low AND (high IS NULL OR round(value) < high)
WHERE quantity = 'uv_index' AND window_start >= time_bucket(INTERVAL 1 HOUR, $since)
