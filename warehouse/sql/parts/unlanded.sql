-- Ranges of seqs that never landed: the gaps between landed seqs, before the first and after the last of a boot, cut
-- where reports of dropped ones begin and end and where what the device may still hold begins. Nothing is expanded:
-- a range costs two rows, however long it is.
-- Grain: one range
-- Key: post_id, stream, boot_id, first_seq
-- Reads: boot_streams, edges, claims
WITH gaps AS (
    SELECT post_id, stream, boot_id, seq + 1 AS first_seq, coalesce(next_seq - 1, last_seq) AS last_seq,
        edges.window_start AS window_start
    FROM edges
    JOIN boot_streams USING (post_id, stream, boot_id)
    WHERE coalesce(next_seq - 1, last_seq) > seq
    UNION ALL
    SELECT post_id, stream, boot_id, first_seq, coalesce(landed_first_seq - 1, last_seq), window_start
    FROM boot_streams
    WHERE coalesce(landed_first_seq - 1, last_seq) >= first_seq
),
steps AS (
    SELECT post_id, stream, boot_id, first_seq AS seq, 1 AS gap, 0 AS dropped, 0 AS held, window_start FROM gaps
    UNION ALL
    SELECT post_id, stream, boot_id, last_seq + 1, -1, 0, 0, NULL FROM gaps
    UNION ALL
    SELECT post_id, stream, boot_id, first_seq, 0, 1, 0, NULL FROM claims WHERE kind = 'dropped'
    UNION ALL
    SELECT post_id, stream, boot_id, last_seq + 1, 0, -1, 0, NULL FROM claims WHERE kind = 'dropped'
    UNION ALL
    SELECT post_id, stream, boot_id, held_seq, 0, 0, 1, NULL FROM boot_streams WHERE held_seq IS NOT NULL
),
places AS (
    SELECT post_id, stream, boot_id, seq, sum(gap) AS gap, sum(dropped) AS dropped, sum(held) AS held,
        max(window_start) AS window_start
    FROM steps
    GROUP BY post_id, stream, boot_id, seq
),
states AS (
    SELECT post_id, stream, boot_id, seq,
        CASE
            WHEN sum(gap) OVER up_to = 0 THEN NULL
            WHEN sum(dropped) OVER up_to > 0 THEN 'dropped'
            ELSE 'missing'
        END AS status,
        status = 'missing' AND sum(held) OVER up_to > 0 AS is_awaited,
        last_value(window_start IGNORE NULLS) OVER up_to AS window_start
    FROM places
    WINDOW up_to AS (PARTITION BY post_id, stream, boot_id ORDER BY seq)
),
changes AS (
    SELECT *
    FROM states
    WINDOW by_seq AS (PARTITION BY post_id, stream, boot_id ORDER BY seq)
    QUALIFY (status, is_awaited) IS DISTINCT FROM lag((status, is_awaited)) OVER by_seq
)
SELECT
    post_id, stream, boot_id, seq AS first_seq, next_seq - 1 AS last_seq, next_seq - seq AS seq_count,
    status, is_awaited, window_start
FROM (
    SELECT *, lead(seq) OVER (PARTITION BY post_id, stream, boot_id ORDER BY seq) AS next_seq FROM changes
)
WHERE status IS NOT NULL
