-- Births, heartbeats and wills of devices, without conflicting copies.
-- Grain: one status message
-- Key: post_id, boot_id, seq, event_time, kind
-- Columns: device_status
SELECT
    post_id, boot_id, seq, first_seq, event_time, kind, firmware, clock_offset_s, dropped_count, dropped,
    oldest_held, previous_boot_id, previous_highest_seq, gateway_id, flag, received_time, digest
FROM lake.device_status
WHERE NOT is_conflicting
