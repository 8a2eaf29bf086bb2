-- Quarter hours of traffic of the sampled post-hours (temporary table `cells`: post_id, hour), straight from the lanes'
-- summaries.
-- Grain: one post, direction and quarter hour
-- Key: post_id, direction, window_start
WITH lanes AS (
    SELECT
        lane_flows.*,
        time_bucket(INTERVAL 15 MINUTE, event_time) AS window_start,
        flag IN (1, 2) AS is_good,
        coalesce(speed_count, vehicle_count) AS speeds,
        is_good AND speeds > 0 AND mean_speed_kmh IS NOT NULL AS has_speed,
        is_good AND speeds > 0 AND inverse_speed_sum_h_km IS NOT NULL AS has_inverse,
        is_good AND coalesce(occupancy_pct >= 0, false) AS has_occupancy,
        -- for the public figures any valid summary counts, a lane once in each message
        is_valid AND row_number() OVER (
            PARTITION BY lane_flows.post_id, digest, direction, lane ORDER BY event_time, lane_index
        ) = 1 AS is_released
    FROM readings.lane_flows
    JOIN cells
        ON cells.post_id = lane_flows.post_id AND event_time >= hour AND event_time < hour + INTERVAL 1 HOUR
    WHERE event_time >= $since AND event_time < $until
),
summed AS (
    SELECT
        post_id, direction, window_start,
        count(DISTINCT event_time) AS half_minutes,
        count(*) FILTER (is_good) AS lane_summaries,
        count(*) FILTER (NOT is_good) AS flagged_count,
        coalesce(sum(vehicle_count) FILTER (is_good), 0) AS vehicle_count,
        sum(motorcycle_count) FILTER (is_good) AS motorcycle_count,
        sum(private_car_count) FILTER (is_good) AS private_car_count,
        sum(taxi_count) FILTER (is_good) AS taxi_count,
        sum(light_goods_count) FILTER (is_good) AS light_goods_count,
        sum(heavy_goods_count) FILTER (is_good) AS heavy_goods_count,
        sum(bus_count) FILTER (is_good) AS bus_count,
        sum(other_count) FILTER (is_good) AS other_count,
        coalesce(sum(speeds) FILTER (has_speed), 0) AS speed_count,
        coalesce(sum(mean_speed_kmh * speeds) FILTER (has_speed), 0) AS speed_sum_kmh,
        coalesce(sum(inverse_speed_sum_h_km) FILTER (has_inverse), 0) AS inverse_speed_sum_h_km,
        coalesce(sum(speeds) FILTER (has_inverse), 0) AS inverse_speed_count,
        coalesce(sum(occupancy_pct) FILTER (has_occupancy), 0) AS occupancy_sum_pct,
        count(*) FILTER (has_occupancy) AS occupancy_count,
        -- no lane and half-minute stands for more than 75 vehicles in a public figure
        coalesce(sum(least(greatest(vehicle_count, 0), 75)) FILTER (is_released), 0) AS release_count,
        coalesce(sum(release_speed_sum) FILTER (is_released), 0) AS release_speed_sum,
        max(event_time) AS last_event_time
    FROM lanes
    GROUP BY ALL
)
SELECT *,
    30 AS expected_count,
    (half_minutes / 30)::DOUBLE AS completeness,
    vehicle_count * 3600.0::DOUBLE / (half_minutes * 30) AS flow_veh_h,
    speed_sum_kmh / nullif(speed_count, 0) AS mean_speed_kmh,
    CASE WHEN inverse_speed_sum_h_km > 0 THEN inverse_speed_count / inverse_speed_sum_h_km END AS space_mean_speed_kmh,
    occupancy_sum_pct / nullif(occupancy_count, 0) AS occupancy_pct
FROM summed
