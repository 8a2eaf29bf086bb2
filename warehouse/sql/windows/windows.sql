-- Values of five-minute windows, by each quantity's own method; completeness says how much of the window landed.
-- Grain: one post, quantity and window
-- Key: post_id, quantity, window_start
-- Columns: windows
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Reads: final
-- Column is_final: Whether the window is announced final: a later arrival is possible, and makes another revision.
-- Column data_through [UTC]: What landed until then is in the row.
SELECT
    window_start, make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    period_s, post_id, quantity, value, expected_count, completeness,
    coalesce(window_start + to_seconds(period_s) <= final_through, false) AS is_final, revision, data_through,
    value_count, flagged_count, value_sum, value_sum_squares, energy_sum, sin_sum, cos_sum, unit_count,
    sin_speed_sum_ms, cos_speed_sum_ms, vector_count, value_min, value_max, first_value, last_value, increase,
    last_event_time, last_used_time
FROM lake.windows
LEFT JOIN (SELECT quantity, stream FROM main.quantities) USING (quantity)
LEFT JOIN final USING (stream)
