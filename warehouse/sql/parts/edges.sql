-- Landed messages after which something changes: the next seq is not the next number, or there is none, or this is the
-- first of an hour.
-- Grain: one message
-- Key: post_id, stream, boot_id, seq
-- Reads: messages
SELECT
    post_id, stream, boot_id, seq, window_start,
    lead(seq) OVER by_seq AS next_seq,
    window_start IS DISTINCT FROM lag(window_start) OVER by_seq AS is_first_of_hour
FROM messages
WINDOW by_seq AS (PARTITION BY post_id, stream, boot_id ORDER BY seq)
QUALIFY next_seq IS NULL OR next_seq <> seq + 1 OR is_first_of_hour
