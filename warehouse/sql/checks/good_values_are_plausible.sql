-- What no flag speaks against lies within its quantity's plausible limits, in readings and in minutes, and what is
-- counted is not negative.
-- Grain: one post and quantity of a table
-- Key: table_name, post_id, quantity
WITH used AS (
    SELECT 'observations' AS table_name, post_id, quantity, value AS low, value AS high, event_time AS time
    FROM lake.observations
    WHERE event_time >= $since AND flag = 1
    UNION ALL
    SELECT 'minutes', post_id, quantity, value_min, value_max, window_start
    FROM lake.minutes
    WHERE window_start >= $since AND value_count <> 0
    UNION ALL
    SELECT 'footfall', post_id, 'crossings_in_count', crossings_in_count, crossings_in_count, event_time
    FROM lake.footfall
    WHERE event_time >= $since AND flag = 1
    UNION ALL
    SELECT 'footfall', post_id, 'crossings_out_count', crossings_out_count, crossings_out_count, event_time
    FROM lake.footfall
    WHERE event_time >= $since AND flag = 1
    UNION ALL
    SELECT 'lane_flows', post_id, 'vehicle_count', vehicle_count, vehicle_count, event_time
    FROM lake.lane_flows
    WHERE event_time >= $since AND flag = 1
    UNION ALL
    -- without a vehicle the speed is the limit, a placeholder, and occupancy may be -1
    SELECT 'lane_flows', post_id, 'mean_speed_kmh', mean_speed_kmh, mean_speed_kmh, event_time
    FROM lake.lane_flows
    WHERE event_time >= $since AND flag = 1 AND vehicle_count > 0 AND mean_speed_kmh IS NOT NULL
    UNION ALL
    SELECT 'lane_flows', post_id, 'occupancy_pct', occupancy_pct, occupancy_pct, event_time
    FROM lake.lane_flows
    WHERE event_time >= $since AND flag = 1 AND vehicle_count > 0 AND occupancy_pct IS NOT NULL
)
SELECT
    table_name, post_id, quantity, count(*) AS row_count, min(low) AS least, max(high) AS greatest, min(time) AS first_time
FROM used
JOIN main.quantities USING (quantity)
-- null: a good reading has a value
WHERE NOT coalesce(low >= plausible_low AND high <= plausible_high AND low <= high, false)
GROUP BY ALL
