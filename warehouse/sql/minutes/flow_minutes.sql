-- Mergeable traffic state of a minute, over the lanes of a direction.
-- Grain: one post, direction and minute
-- Key: post_id, direction, window_start
-- Columns: flow_minutes
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
SELECT
    window_start, make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    post_id, direction, half_minutes, lane_summaries, flagged_count, vehicle_count,
    motorcycle_count, private_car_count, taxi_count, light_goods_count, heavy_goods_count,
    bus_count, other_count, speed_count, speed_sum_kmh, inverse_speed_sum_h_km, inverse_speed_count,
    occupancy_sum_pct, occupancy_count, release_count, release_speed_sum, last_event_time
FROM lake.flow_minutes
