-- Every lane's direction is one that the registry gave the post at that moment; a window's, when its newest half-minute
-- began.
-- Grain: one post and direction of a table
-- Key: table_name, post_id, direction
WITH spoken AS (
    SELECT 'lane_flows' AS table_name, post_id, direction, event_time AS time
    FROM lake.lane_flows
    WHERE event_time >= $since
    UNION ALL
    SELECT 'flow_minutes', post_id, direction, last_event_time FROM lake.flow_minutes WHERE window_start >= $since
    UNION ALL
    SELECT 'flow_windows', post_id, direction, last_event_time FROM lake.flow_windows WHERE window_start >= $since
),
known AS (
    SELECT post_id, direction, valid_from, valid_to
    FROM city.directions
    JOIN city.lamppost_entries USING (post_id, valid_from)
)
SELECT table_name, post_id, direction, count(*) AS row_count, min(time) AS first_time
FROM spoken
ANTI JOIN known
    ON spoken.post_id = known.post_id AND spoken.direction = known.direction
    AND time >= valid_from AND time < coalesce(valid_to, 'infinity')
GROUP BY ALL
