-- Illegal dumping seen by posts, without conflicting copies; internal.
-- Grain: one event
-- Key: post_id, boot_id, seq, event_time
-- Columns: dumping_events
SELECT
    post_id, boot_id, seq, first_seq, event_time, kind, confidence, flag, received_time, digest
FROM lake.dumping_events
WHERE NOT is_conflicting
