-- What births and heartbeats say of seqs that need not have landed. `previous`: the boot before had 0 to last_seq.
-- `dropped`: the post has given these up. `held`: the post holds first_seq and nothing below it.
-- Grain: one statement of one status message
-- Key: none
-- Reads: refused
WITH spoken AS (
    SELECT post_id, event_time, previous_boot_id, previous_highest_seq, dropped, oldest_held
    FROM lake.device_status
    WHERE event_time >= $since - INTERVAL 24 HOUR AND NOT is_conflicting
        AND (previous_boot_id IS NOT NULL OR dropped IS NOT NULL OR oldest_held IS NOT NULL)
    UNION ALL
    SELECT post_id, least(event_time, received_time),
        TRY(json_extract_string(status_text, '$.previous.boot_id')),
        TRY(json_extract(status_text, '$.previous.highest_seq')),
        TRY(json_extract(status_text, '$.dropped')),
        TRY(json_extract(status_text, '$.oldest_held'))
    FROM refused
    WHERE status_text IS NOT NULL
),
hours AS (
    SELECT *, time_bucket(INTERVAL 1 HOUR, event_time) AS window_start FROM spoken
),
previous AS (
    SELECT post_id, window_start, previous_boot_id,
        unnest(map_entries(TRY(previous_highest_seq::JSON::MAP(VARCHAR, BIGINT)))) AS highest
    FROM hours
    WHERE previous_boot_id IS NOT NULL
),
gone AS (
    SELECT post_id, window_start, unnest(TRY(from_json(
        dropped, '[{"boot_id":"VARCHAR","stream":"VARCHAR","first_seq":"BIGINT","last_seq":"BIGINT"}]'
    ))) AS span
    FROM hours
    WHERE dropped IS NOT NULL
),
kept AS (
    SELECT post_id, window_start, unnest(TRY(from_json(
        oldest_held, '[{"boot_id":"VARCHAR","stream":"VARCHAR","seq":"BIGINT"}]'
    ))) AS oldest
    FROM hours
    WHERE oldest_held IS NOT NULL
)
SELECT 'previous' AS kind, post_id, highest.key AS stream, previous_boot_id AS boot_id,
    0::BIGINT AS first_seq, highest.value AS last_seq, window_start
FROM previous
UNION ALL
SELECT 'dropped', post_id, span.stream, span.boot_id, span.first_seq, span.last_seq, window_start
FROM gone
WHERE span.first_seq <= span.last_seq
UNION ALL
SELECT 'held', post_id, oldest.stream, oldest.boot_id, oldest.seq, NULL, window_start
FROM kept
