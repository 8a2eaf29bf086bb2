-- Births, heartbeats and wills of devices, without conflicting copies.
-- Grain: one status message
-- Key: post_id, boot_id, seq, event_time, kind
-- Columns: device_status
-- Column event_time_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
SELECT
    post_id, boot_id, seq, first_seq, event_time, make_timestamp(epoch_us(event_time)) + INTERVAL 8 HOUR AS event_time_hk,
    kind, firmware, clock_offset_s, dropped_count, dropped,
    oldest_held, previous_boot_id, previous_highest_seq, gateway_id, flag, received_time, digest
FROM lake.device_status
WHERE NOT is_conflicting
