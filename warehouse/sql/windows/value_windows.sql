-- Values of windows of 5, 15 and 60 minutes (choose by period_s), by each quantity's own method, with mean, spread,
-- least and greatest of the values used.
-- Grain: one post, quantity, period and window
-- Key: post_id, quantity, period_s, window_start
-- Columns: windows
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column stream: Stream that carries the quantity.
-- Column value_mean [as quantity]: Mean of the values used, whatever the quantity's method; null when circular.
-- Column value_sd [as quantity]: Their sample standard deviation; null when circular or fewer than two.
-- Column increase [as quantity]: Growth of a counter, from the last value before the window; resets and rollovers add.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the five-minute windows in it changed after they were announced final, in all.
-- Reads: merged_values
SELECT
    window_start, window_start_hk, period_s, post_id, stream, quantity, value, value_mean, value_sd,
    value_min, value_max, increase, value_count, flagged_count, expected_count, completeness,
    is_final, revision, data_through, last_event_time
FROM merged_values
WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
