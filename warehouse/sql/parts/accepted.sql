-- Messages of which a reading stands in the lake, with the least and the greatest of what their copies say.
-- Grain: one accepted message
-- Key: post_id, stream, boot_id, seq
-- Reads: copies
SELECT
    post_id, stream, boot_id, seq,
    min(first_seq) AS first_seq,
    min(event_time) AS event_time,
    min(received_time) AS received_time,
    min(digest) AS least_digest,
    max(digest) AS greatest_digest
FROM copies
GROUP BY post_id, stream, boot_id, seq
