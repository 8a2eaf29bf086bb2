-- Quarantine as a set by topic and digest. A message sent under another post's topic belongs to its boot's post, when
-- the accepted messages of that boot name one.
-- Grain: one topic and payload
-- Key: topic, digest
-- Reads: accepted
WITH boots AS (
    SELECT boot_id, min(post_id) AS least_post, max(post_id) AS greatest_post
    FROM accepted
    SEMI JOIN lake.quarantine USING (boot_id)
    GROUP BY boot_id
),
sets AS (
    SELECT topic, digest, min(received_time) AS received_time, count(*) - 1 AS duplicate_count,
        arg_min(
            {
                'post_id': post_id, 'stream': stream, 'boot_id': boot_id, 'seq': seq, 'first_seq': first_seq,
                'event_time': event_time, 'reason': reason, 'payload': payload
            },
            received_time
        ) AS first_copy
    FROM lake.quarantine
    WHERE received_time >= $since - INTERVAL 24 HOUR
    GROUP BY topic, digest
)
SELECT
    topic, digest, duplicate_count, received_time,
    CASE
        WHEN least_post = greatest_post AND first_copy.stream IS NOT NULL AND first_copy.seq IS NOT NULL THEN least_post
        ELSE first_copy.post_id
    END AS post_id,
    first_copy.stream AS stream,
    boot_id,
    first_copy.seq AS seq,
    first_copy.first_seq AS first_seq,
    first_copy.event_time AS event_time,
    first_copy.reason AS reason,
    -- these were JSON that keeps the contract: what a birth or a heartbeat reports in them counts
    CASE
        WHEN first_copy.stream = 'status' AND first_copy.reason IN ('future', 'too_old', 'unknown_post', 'unknown_sensor')
        THEN TRY(decode(first_copy.payload))
    END AS status_text,
    first_copy.stream IS NOT NULL AND first_copy.seq IS NOT NULL AS has_key
FROM (SELECT *, first_copy.boot_id AS boot_id FROM sets)
LEFT JOIN boots USING (boot_id)
