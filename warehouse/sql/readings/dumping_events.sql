-- Illegal dumping seen by posts, without conflicting copies; internal.
-- Grain: one event
-- Key: post_id, boot_id, seq, event_time
-- Columns: dumping_events
-- Column event_time_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
SELECT
    post_id, boot_id, seq, first_seq, event_time, make_timestamp(epoch_us(event_time)) + INTERVAL 8 HOUR AS event_time_hk,
    kind, confidence, flag, received_time, digest
FROM lake.dumping_events
WHERE NOT is_conflicting
