-- Every row of a reading that carries a message's key: one or more per message and copy. Wills have no seq.
-- Grain: one row of a table of readings
-- Key: none
SELECT post_id, stream, boot_id, seq, first_seq, event_time, received_time, digest
FROM lake.observations
WHERE event_time >= $since - INTERVAL 24 HOUR
UNION ALL
SELECT post_id, 'traffic', boot_id, seq, first_seq, event_time, received_time, digest
FROM lake.lane_flows
WHERE event_time >= $since - INTERVAL 24 HOUR
UNION ALL
SELECT post_id, 'pedestrian', boot_id, seq, first_seq, event_time, received_time, digest
FROM lake.footfall
WHERE event_time >= $since - INTERVAL 24 HOUR
UNION ALL
SELECT post_id, 'dumping', boot_id, seq, first_seq, event_time, received_time, digest
FROM lake.dumping_events
WHERE event_time >= $since - INTERVAL 24 HOUR
UNION ALL
SELECT post_id, 'status', boot_id, seq, first_seq, event_time, received_time, digest
FROM lake.device_status
WHERE event_time >= $since - INTERVAL 24 HOUR AND kind <> 'will'
