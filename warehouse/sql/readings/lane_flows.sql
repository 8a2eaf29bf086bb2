-- Lane summaries of half-minutes, without conflicting copies.
-- Grain: one lane of one message
-- Key: post_id, boot_id, seq, event_time, lane_index
-- Columns: lane_flows
-- Column event_time_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
SELECT
    post_id, boot_id, seq, first_seq, event_time, make_timestamp(epoch_us(event_time)) + INTERVAL 8 HOUR AS event_time_hk,
    period_s, lane_index, lane, direction,
    vehicle_count, motorcycle_count, private_car_count, taxi_count, light_goods_count,
    heavy_goods_count, bus_count, other_count, speed_count, mean_speed_kmh, speed_sd_kmh, inverse_speed_sum_h_km,
    occupancy_pct, is_valid, release_speed_sum, flag, received_time, digest
FROM lake.lane_flows
WHERE NOT is_conflicting
