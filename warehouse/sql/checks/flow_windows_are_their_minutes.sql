-- Quarter hours of traffic are what their minutes add up to; none is missing and none is too many. Those whose minutes
-- are past their retention are not asked.
-- Grain: one post, direction and quarter hour
-- Key: post_id, direction, window_start
WITH wanted AS (
    SELECT post_id, direction, time_bucket(INTERVAL 15 MINUTE, window_start) AS window_start,
        sum(half_minutes) AS half_minutes, sum(lane_summaries) AS lane_summaries, sum(flagged_count) AS flagged_count,
        sum(vehicle_count) AS vehicle_count, sum(release_count) AS release_count,
        sum(release_speed_sum) AS release_speed_sum,
        sum(vehicle_count) * 3600.0::DOUBLE / nullif(sum(half_minutes) * 30, 0) AS flow_veh_h,
        sum(speed_sum_kmh) / nullif(sum(speed_count), 0) AS mean_speed_kmh,
        sum(inverse_speed_count) / nullif(sum(inverse_speed_sum_h_km), 0) AS space_mean_speed_kmh,
        sum(occupancy_sum_pct) / nullif(sum(occupancy_count), 0) AS occupancy_pct
    FROM lake.flow_minutes
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
    GROUP BY ALL
),
stored AS (
    SELECT *
    FROM lake.flow_windows
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
)
SELECT post_id, direction, window_start,
    stored.half_minutes AS half_minutes, wanted.half_minutes AS half_minutes_of_minutes,
    stored.flow_veh_h AS flow_veh_h, wanted.flow_veh_h AS flow_of_minutes
FROM stored
FULL JOIN wanted USING (post_id, direction, window_start)
LEFT JOIN quality.removed ON table_name = 'flow_minutes' AND removed.stream = 'traffic'
WHERE coalesce(window_start >= kept_from, true) AND NOT coalesce(
    stored.half_minutes = wanted.half_minutes AND stored.lane_summaries = wanted.lane_summaries
    AND stored.flagged_count = wanted.flagged_count AND stored.vehicle_count = wanted.vehicle_count
    AND stored.release_count = wanted.release_count AND stored.release_speed_sum = wanted.release_speed_sum
    AND is_near(stored.flow_veh_h, wanted.flow_veh_h) AND is_near(stored.mean_speed_kmh, wanted.mean_speed_kmh)
    AND is_near(stored.space_mean_speed_kmh, wanted.space_mean_speed_kmh)
    AND is_near(stored.occupancy_pct, wanted.occupancy_pct),
    false
)
