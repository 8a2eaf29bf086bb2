-- How the devices' clocks stand, as their births and heartbeats tell: receipt less phenomenon time. Shown, never
-- corrected. A clock that is ahead makes the least delay negative; one that is behind makes even the least delay long.
-- What was held back and sent later makes the median long, not the least: after it fresh messages come too.
-- Grain: one post, boot and ten minutes of receipt
-- Key: post_id, boot_id, window_start
-- Column post_id: Lamppost.
-- Column boot_id: Boot of the device, 16 hexadecimal digits.
-- Column window_start [UTC]: Start of the ten minutes, by received_time.
-- Column message_count [1]: Births and heartbeats received, each once.
-- Column least_delay_s [s]: Least of received_time less event_time; null when none was accepted.
-- Column median_delay_s [s]: Their median.
-- Column clock_offset_s [s]: Median of what the device itself says of its clock; null when it said nothing.
-- Column future_count [1]: Messages of any stream that were quarantined as future.
-- Column future_delay_s [s]: Median of received_time less event_time of these.
WITH heard AS (
    SELECT post_id, boot_id, time_bucket(INTERVAL 10 MINUTE, received_time) AS window_start,
        count(*) AS message_count,
        min(date_diff('microsecond', event_time, received_time)) / 1e6 AS least_delay_s,
        median(date_diff('microsecond', event_time, received_time)) / 1e6 AS median_delay_s,
        median(clock_offset_s) AS clock_offset_s
    FROM lake.device_status
    WHERE NOT is_conflicting AND kind <> 'will'
    GROUP BY ALL
),
copies AS (
    SELECT post_id, boot_id, min(received_time) AS received_time, min(event_time) AS event_time
    FROM lake.quarantine
    WHERE reason = 'future' AND post_id IS NOT NULL AND boot_id IS NOT NULL
    GROUP BY topic, digest, post_id, boot_id
),
ahead AS (
    SELECT post_id, boot_id, time_bucket(INTERVAL 10 MINUTE, received_time) AS window_start,
        count(*) AS future_count,
        median(date_diff('microsecond', event_time, received_time)) / 1e6 AS future_delay_s
    FROM copies
    GROUP BY ALL
)
SELECT
    post_id, boot_id, window_start,
    coalesce(message_count, 0) AS message_count,
    least_delay_s,
    median_delay_s,
    clock_offset_s,
    coalesce(future_count, 0) AS future_count,
    future_delay_s
FROM heard
FULL JOIN ahead USING (post_id, boot_id, window_start)
