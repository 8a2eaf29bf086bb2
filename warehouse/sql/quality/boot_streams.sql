-- The seqs that a boot has given in a stream, as far as anything that landed tells: what the ledger expects.
-- A boot whose birth landed, or of which a later birth tells and nothing landed, starts at 0; another where the first
-- message that landed, or a report of dropped ones, starts. It ends at the highest seq that landed, that the next
-- birth names or that was reported as dropped.
-- Grain: one boot and stream of a post
-- Key: post_id, stream, boot_id
-- Reads: messages, claims
-- Column post_id: Lamppost.
-- Column stream: Stream.
-- Column boot_id: Boot of the device, 16 hexadecimal digits.
-- Column first_seq [1]: Where the boot starts.
-- Column last_seq [1]: Where it ends, as far as is known.
-- Column landed_first_seq [1]: Lowest seq that landed; null when none did.
-- Column landed_last_seq [1]: Highest seq that landed; null when none did.
-- Column held_seq [1]: Lowest seq that the device may still hold, by the newest that it said; null when unknown.
-- Column window_start [UTC]: Hour that missing seqs below the first landed one are counted in.
WITH landed AS (
    SELECT post_id, stream, boot_id,
        min(seq) AS landed_first_seq,
        max(seq) AS landed_last_seq,
        min(first_seq) AS least_first_seq,
        max(first_seq) AS held_seq,
        arg_min(window_start, seq) AS window_start
    FROM messages
    GROUP BY ALL
),
births AS (
    SELECT post_id, boot_id, window_start AS birth_hour FROM messages WHERE stream = 'status' AND seq = 0
),
claimed AS (
    SELECT post_id, stream, boot_id,
        max(last_seq) AS last_seq,
        min(first_seq) FILTER (kind = 'dropped') AS dropped_seq,
        min(first_seq) FILTER (kind = 'previous') AS previous_seq,
        max(first_seq) FILTER (kind = 'held') AS held_seq,
        coalesce(
            min(window_start) FILTER (kind = 'previous'), min(window_start) FILTER (kind = 'dropped')
        ) AS window_start
    FROM claims
    GROUP BY ALL
)
SELECT
    post_id, stream, boot_id,
    CASE
        WHEN birth_hour IS NOT NULL THEN 0
        WHEN landed_first_seq IS NULL AND previous_seq IS NOT NULL THEN 0
        ELSE least(landed_first_seq, least_first_seq, dropped_seq)
    END AS first_seq,
    greatest(landed_last_seq, claimed.last_seq) AS last_seq,
    landed_first_seq,
    landed_last_seq,
    greatest(landed.held_seq, claimed.held_seq) AS held_seq,
    coalesce(birth_hour, landed.window_start, claimed.window_start) AS window_start
FROM landed
FULL JOIN claimed USING (post_id, stream, boot_id)
LEFT JOIN births USING (post_id, boot_id)
-- of a boot and stream that is only known to be held from somewhere on, no seq is known to exist
WHERE landed_last_seq IS NOT NULL OR claimed.last_seq IS NOT NULL
