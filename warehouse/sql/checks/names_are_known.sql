-- Flags, kinds, streams, tests and reasons are those of the contract.
-- Grain: one value of a column that the contract does not name
-- Key: table_name, column_name, value
WITH named AS (
    SELECT 'observations' AS table_name, 'flag' AS column_name, flag::VARCHAR AS value, flag IN (1, 2, 3, 4, 9) AS is_known
    FROM lake.observations
    WHERE event_time >= $since
    UNION ALL
    SELECT 'lane_flows', 'flag', flag::VARCHAR, flag IN (1, 2, 3, 4, 9) FROM lake.lane_flows WHERE event_time >= $since
    UNION ALL
    SELECT 'footfall', 'flag', flag::VARCHAR, flag IN (1, 2, 3, 4, 9) FROM lake.footfall WHERE event_time >= $since
    UNION ALL
    SELECT 'dumping_events', 'kind', kind, kind IN ('household', 'construction', 'bulky', 'other')
    FROM lake.dumping_events
    WHERE event_time >= $since
    UNION ALL
    SELECT 'device_status', 'kind', kind, kind IN ('birth', 'heartbeat', 'will')
    FROM lake.device_status
    WHERE event_time >= $since
    UNION ALL
    SELECT 'duplicates', 'stream', stream,
        stream IN ('traffic', 'pedestrian', 'weather', 'air', 'dumping', 'status')
    FROM lake.duplicates
    WHERE event_time >= $since
    UNION ALL
    SELECT 'quarantine', 'reason', reason, reason IN (
        'unknown_topic', 'unknown_post', 'unknown_sensor', 'unknown_direction', 'malformed', 'unsupported_version',
        'invalid', 'empty', 'unaligned', 'too_old', 'future'
    )
    FROM lake.quarantine
    WHERE received_time >= $since
    UNION ALL
    SELECT 'flags', 'test', test, test IN ('step', 'spike', 'persistence', 'consistency') FROM lake.flags WHERE window_start >= $since
    UNION ALL
    SELECT 'flags', 'flag', flag::VARCHAR, flag IN (1, 3, 4) FROM lake.flags WHERE window_start >= $since
    UNION ALL
    SELECT 'announcements', 'reason', reason, reason IN ('contiguous', 'grace')
    FROM lake.announcements
    WHERE final_through >= $since
)
SELECT table_name, column_name, value, count(*) AS row_count
FROM named
WHERE NOT is_known
GROUP BY ALL
