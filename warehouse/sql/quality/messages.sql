-- Messages that landed and tell their post, stream, boot and seq, each seq once: accepted, or else quarantined.
-- Grain: one message
-- Key: post_id, stream, boot_id, seq
-- Reads: copies, accepted, refused
-- Column post_id: Lamppost; a message sent under another post's topic belongs to the post of its boot.
-- Column stream: Stream of the message.
-- Column boot_id: Boot of the device, 16 hexadecimal digits.
-- Column seq [1]: Number of the message in its post, boot and stream, from 0.
-- Column first_seq [1]: Lowest seq of this boot and stream that the device still held.
-- Column status: accepted (a reading stands in the lake, whatever else landed), or quarantined.
-- Column reason: Reason code of a quarantined message.
-- Column event_time [UTC]: Phenomenon time; null where a quarantined message does not tell it.
-- Column received_time [UTC]: Receipt of its first copy.
-- Column window_start [UTC]: Hour of event_time, or for a quarantined message of the earlier of both times.
-- Column duplicate_count [1]: Copies of the same bytes that landed besides the first.
-- Column conflicting_count [1]: Other bytes under the same seq, besides the first; another time is other bytes.
WITH extra AS (
    SELECT post_id, stream, boot_id, seq, count(*) AS duplicate_count
    FROM lake.duplicates
    WHERE event_time >= $since - INTERVAL 24 HOUR
    GROUP BY ALL
),
quarantined AS (
    SELECT post_id, stream, boot_id, seq,
        min(first_seq) AS first_seq,
        arg_min(reason, (received_time, digest)) AS reason,
        -- plain arg_min passes over nulls, and would take another copy's time
        arg_min_null(event_time, (received_time, digest)) AS event_time,
        min(received_time) AS received_time,
        sum(duplicate_count)::BIGINT AS duplicate_count
    FROM refused
    WHERE has_key
    GROUP BY ALL
),
several AS (
    SELECT post_id, stream, boot_id, seq, count(DISTINCT digest) - 1 AS conflicting_count
    FROM (
        SELECT post_id, stream, boot_id, seq, digest
        FROM copies
        SEMI JOIN (SELECT * FROM accepted WHERE least_digest <> greatest_digest)
            USING (post_id, stream, boot_id, seq)
        UNION ALL
        SELECT post_id, stream, boot_id, seq, least_digest
        FROM accepted
        SEMI JOIN quarantined USING (post_id, stream, boot_id, seq)
        UNION ALL
        SELECT post_id, stream, boot_id, seq, digest FROM refused WHERE has_key
    )
    GROUP BY ALL
),
landed AS (
    SELECT
        post_id, stream, boot_id, seq, first_seq, 'accepted' AS status, NULL AS reason, event_time, received_time,
        time_bucket(INTERVAL 1 HOUR, event_time) AS window_start
    FROM accepted
    UNION ALL
    SELECT
        post_id, stream, boot_id, seq, first_seq, 'quarantined', reason, event_time, received_time,
        time_bucket(INTERVAL 1 HOUR, least(event_time, received_time))
    FROM quarantined
    ANTI JOIN accepted USING (post_id, stream, boot_id, seq)
)
SELECT
    post_id, stream, boot_id, seq, landed.first_seq, status, landed.reason, landed.event_time, landed.received_time,
    window_start,
    coalesce(extra.duplicate_count, 0) + coalesce(quarantined.duplicate_count, 0) AS duplicate_count,
    coalesce(conflicting_count, 0) AS conflicting_count
FROM landed
LEFT JOIN extra USING (post_id, stream, boot_id, seq)
LEFT JOIN quarantined USING (post_id, stream, boot_id, seq)
LEFT JOIN several USING (post_id, stream, boot_id, seq)
