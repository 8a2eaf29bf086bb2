-- Means of air quality and noise over windows of 5, 15 and 60 minutes (choose by period_s), where at least 75 % of the
-- promised values were used; with fewer the mean is null and reason says so (value_windows has every mean).
-- Grain: one post, quantity, period and window
-- Key: post_id, quantity, period_s, window_start
-- Columns: windows
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column value [as quantity]: Mean, of noise the energy mean; null below 75 % data capture.
-- Column reason: Why the value is null.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the five-minute windows in it changed after they were announced final, in all.
-- Reads: merged_values
SELECT
    window_start, window_start_hk, period_s, post_id, quantity,
    CASE WHEN completeness >= 0.75 THEN value END AS value,
    CASE WHEN completeness < 0.75
        THEN format('{} of {} values: below 75 % data capture', value_count, expected_count)
    END AS reason,
    value_count, flagged_count, expected_count, completeness,
    is_final, revision, data_through, last_event_time
FROM merged_values
WHERE stream = 'air' AND window_start >= time_bucket(INTERVAL 1 HOUR, $since)
