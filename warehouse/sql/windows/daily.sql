-- Values of days in Hong Kong (from midnight to midnight there), merged from the hours by each quantity's own method.
-- Grain: one post, quantity and day
-- Key: post_id, quantity, window_start
-- Columns: hours
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column stream: Stream that carries the quantity.
-- Column value_mean [as quantity]: Mean of the values used, whatever the quantity's method; null when circular.
-- Column value_sd [as quantity]: Their sample standard deviation; null when circular or fewer than two.
-- Column increase [as quantity]: Growth of a counter, from the last value before the day; resets and rollovers add.
-- Column is_final: Whether the whole day is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Reads: all_values
SELECT
    window_start, window_start_hk, period_s, post_id, stream, quantity, value, value_mean, value_sd,
    value_min, value_max, increase, value_count, flagged_count, expected_count, completeness,
    is_final, revision, data_through, last_event_time
FROM all_values
WHERE period_s = 86400 AND zone = 'Asia/Hong_Kong' AND window_start > $since - INTERVAL 24 HOUR
