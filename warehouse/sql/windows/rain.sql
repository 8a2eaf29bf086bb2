-- Rain of windows of 5, 15 and 60 minutes (choose by period_s), of the past hour and since midnight in Hong Kong.
-- Counters are differenced; restarts and rollovers add, impossible jumps and silences of more than ten minutes do not.
-- Grain: one post, period and window
-- Key: post_id, period_s, window_start
-- Column window_start [UTC]: Start of the window [start, start + period).
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column period_s [s]: Length of the window.
-- Column post_id: Lamppost.
-- Column rain_mm [mm]: Rain of the window; null when no value landed.
-- Column past_hour_mm [mm]: Rain of the hour that ends with the window.
-- Column since_midnight_mm [mm]: Rain from midnight in Asia/Hong_Kong to the window's end.
-- Column rainstorm: Step of the scale rainstorm that past_hour_mm reaches: a reference at one post, no warning.
-- Column value_count [1]: Values used.
-- Column flagged_count [1]: Values left out: flags 3, 4 and 9.
-- Column expected_count [1]: Values that the cadence promises for the whole window.
-- Column completeness [1]: value_count / expected_count, at most 1.
-- Column last_event_time [UTC]: Event time of the newest value, used or not.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the five-minute windows in it changed after they were announced final, in all.
-- Reads: merged_values
WITH sums AS (
    SELECT
        window_start, period_s, post_id, value AS rain_mm,
        sum(value) OVER (
            PARTITION BY post_id, period_s ORDER BY window_start
            RANGE BETWEEN to_seconds(3600 - period_s) PRECEDING AND CURRENT ROW
        ) AS past_hour_mm,
        sum(value) OVER (
            PARTITION BY post_id, period_s, timezone('Asia/Hong_Kong', window_start)::DATE ORDER BY window_start
        ) AS since_midnight_mm,
        value_count, flagged_count, expected_count, completeness, is_final, revision, data_through, last_event_time
    FROM merged_values
    WHERE quantity = 'rain_mm'
)
SELECT
    window_start, make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    period_s, post_id, rain_mm, past_hour_mm, since_midnight_mm, step AS rainstorm,
    value_count, flagged_count, expected_count, completeness, is_final, revision, data_through,
    last_event_time
FROM sums
LEFT JOIN main.scales
    ON scale = 'rainstorm' AND past_hour_mm > low AND (high IS NULL OR past_hour_mm <= high)
WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
