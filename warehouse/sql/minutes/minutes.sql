-- Mergeable state of a minute: weather, air and pedestrians. Longer windows are merged from these.
-- Grain: one post, quantity and minute
-- Key: post_id, quantity, window_start
-- Columns: minutes
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
SELECT
    window_start, make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    post_id, quantity, value_count, flagged_count, value_sum, value_sum_squares,
    energy_sum, sin_sum, cos_sum, unit_count, sin_speed_sum_ms, cos_speed_sum_ms, vector_count, value_min,
    value_max, first_value, last_value, increase, last_event_time, last_used_time, plain_count, plain_last, plain_min,
    plain_max
FROM lake.minutes
