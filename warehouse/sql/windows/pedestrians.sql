-- Line crossings of pedestrians in windows of 5, 15 and 60 minutes (choose by period_s); crossings, never people
-- present. Exact: never for publication.
-- Grain: one post, period and window
-- Key: post_id, period_s, window_start
-- Column window_start [UTC]: Start of the window [start, start + period).
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column period_s [s]: Length of the window.
-- Column post_id: Lamppost.
-- Column crossings_in_count [1]: Crossings inwards; null when none could be used.
-- Column crossings_out_count [1]: Crossings outwards; null when none could be used.
-- Column flow_per_h [1/h]: Crossings per hour, both ways, over the half-minutes used.
-- Column value_count [1]: Half-minutes used.
-- Column flagged_count [1]: Half-minutes left out: flags 3, 4 and 9.
-- Column expected_count [1]: Half-minutes of the window.
-- Column completeness [1]: value_count / expected_count, at most 1.
-- Column last_event_time [UTC]: Start of the newest half-minute, used or not.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the five-minute windows in it changed after they were announced final, in all.
-- Reads: merged_values
SELECT
    window_start, any_value(window_start_hk) AS window_start_hk, period_s, post_id,
    any_value(value) FILTER (quantity = 'crossings_in_count')::BIGINT AS crossings_in_count,
    any_value(value) FILTER (quantity = 'crossings_out_count')::BIGINT AS crossings_out_count,
    sum(value) * 3600 / nullif(max(value_count) * 30, 0) AS flow_per_h,
    max(value_count) AS value_count,
    max(flagged_count) AS flagged_count,
    max(expected_count) AS expected_count,
    max(completeness) AS completeness,
    any_value(is_final) AS is_final,
    max(revision) AS revision,
    any_value(data_through) AS data_through,
    max(last_event_time) AS last_event_time
FROM merged_values
WHERE stream = 'pedestrian' AND window_start >= time_bucket(INTERVAL 1 HOUR, $since)
GROUP BY ALL
