-- Traffic of fifteen-minute windows: flow, mean and space-mean speed, occupancy. Exact: never for publication.
-- Grain: one post, direction and window
-- Key: post_id, direction, window_start
-- Columns: flow_windows
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Reads: final
-- Column is_final: Whether the window is announced final: a later arrival is possible, and makes another revision.
-- Column data_through [UTC]: What landed until then is in the row.
SELECT
    window_start, make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    period_s, post_id, direction, flow_veh_h, mean_speed_kmh, space_mean_speed_kmh,
    occupancy_pct, expected_count, completeness,
    coalesce(window_start + to_seconds(period_s) <= final_through, false) AS is_final, revision, data_through,
    half_minutes, lane_summaries, flagged_count,
    vehicle_count, motorcycle_count, private_car_count, taxi_count, light_goods_count,
    heavy_goods_count, bus_count, other_count, speed_count, speed_sum_kmh, inverse_speed_sum_h_km,
    inverse_speed_count, occupancy_sum_pct, occupancy_count, release_count, release_speed_sum,
    last_event_time
FROM lake.flow_windows
LEFT JOIN final ON stream = 'traffic'
