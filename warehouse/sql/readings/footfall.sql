-- Line crossings of pedestrians per half-minute, without conflicting copies; crossings, never people present.
-- Grain: one message
-- Key: post_id, boot_id, seq, event_time
-- Columns: footfall
-- Column event_time_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
SELECT
    post_id, boot_id, seq, first_seq, event_time, make_timestamp(epoch_us(event_time)) + INTERVAL 8 HOUR AS event_time_hk,
    period_s, crossings_in_count, crossings_out_count,
    flag, received_time, digest
FROM lake.footfall
WHERE NOT is_conflicting
