-- Line crossings of pedestrians per half-minute, without conflicting copies; crossings, never people present.
-- Grain: one message
-- Key: post_id, boot_id, seq, event_time
-- Columns: footfall
SELECT
    post_id, boot_id, seq, first_seq, event_time, period_s, crossings_in_count, crossings_out_count,
    flag, received_time, digest
FROM lake.footfall
WHERE NOT is_conflicting
