-- Values of five-minute windows, by each quantity's own method; completeness says how much of the window landed.
-- Grain: one post, quantity and window
-- Key: post_id, quantity, window_start
-- Columns: windows
SELECT
    window_start, period_s, post_id, quantity, value, expected_count, completeness, revision,
    value_count, flagged_count, value_sum, value_sum_squares, energy_sum, sin_sum, cos_sum, unit_count,
    sin_speed_sum_ms, cos_speed_sum_ms, vector_count, value_min, value_max, first_value, last_value, increase, last_event_time
FROM lake.windows
