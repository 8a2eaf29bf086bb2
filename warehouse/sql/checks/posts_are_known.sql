-- Every reading is of a post that the registry knew at that moment, and every window of a post that it knew when the
-- window's newest reading was made. Wills may be of a gateway.
-- Grain: one post of a table
-- Key: table_name, post_id
WITH spoken AS (
    SELECT 'observations' AS table_name, post_id, event_time AS time FROM lake.observations WHERE event_time >= $since
    UNION ALL
    SELECT 'lane_flows', post_id, event_time FROM lake.lane_flows WHERE event_time >= $since
    UNION ALL
    SELECT 'footfall', post_id, event_time FROM lake.footfall WHERE event_time >= $since
    UNION ALL
    SELECT 'dumping_events', post_id, event_time FROM lake.dumping_events WHERE event_time >= $since
    UNION ALL
    SELECT 'device_status', post_id, event_time
    FROM lake.device_status
    WHERE event_time >= $since AND NOT (
        kind = 'will'
        AND post_id IN (SELECT gateway_id FROM city.lamppost_entries WHERE gateway_id IS NOT NULL)
    )
    UNION ALL
    SELECT 'minutes', post_id, last_event_time FROM lake.minutes WHERE window_start >= $since
    UNION ALL
    SELECT 'windows', post_id, last_event_time FROM lake.windows WHERE window_start >= $since
    UNION ALL
    SELECT 'hours', post_id, last_event_time FROM lake.hours WHERE window_start >= $since
    UNION ALL
    SELECT 'flow_minutes', post_id, last_event_time FROM lake.flow_minutes WHERE window_start >= $since
    UNION ALL
    SELECT 'flow_windows', post_id, last_event_time FROM lake.flow_windows WHERE window_start >= $since
)
SELECT table_name, post_id, count(*) AS row_count, min(time) AS first_time
FROM spoken
ANTI JOIN city.lamppost_entries AS entries
    ON spoken.post_id = entries.post_id AND time >= valid_from AND time < coalesce(valid_to, 'infinity')
GROUP BY ALL
