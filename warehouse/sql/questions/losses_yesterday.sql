-- What was lost yesterday (Hong Kong), and why: the ledger's messages that never became readings, by reason, with what
-- the post and ingest tell of that day beside them. missing: never landed, nothing explains it; awaited: the post still
-- holds it, it may yet come; dropped: the post gave it up; silent: nothing of the stream was heard all day from a
-- post that the registry holds, so that the count is what the cadence promises (not said when of two days nothing landed
-- at all); everything else is the reason code of quarantine. A post that fell silent in the day shows by last_heard_time
-- only, until it is back. losses_yesterday_since(t) tells the same of the 24 hours from t on. Reads two days of readings.
-- Since: timezone('Asia/Hong_Kong', date_trunc('day', timezone('Asia/Hong_Kong', now())) - INTERVAL 1 DAY)
-- Grain: one post, stream and reason
-- Key: post_id, stream, reason
-- Reads: ledger, messages
-- Column post_id: Lamppost; null where a refused message does not tell it.
-- Column stream: Stream; null where a refused message does not tell it.
-- Column reason: missing, awaited, dropped, silent, or the reason code of quarantine.
-- Column lost_count [1]: Messages.
-- Column expected_count [1]: Messages that the post's seqs tell of in the day; null when nothing is known.
-- Column lost_pct [%]: lost_count as a share of expected_count.
-- Column first_hour [UTC]: First hour that the losses belong to.
-- Column last_hour [UTC]: Last of these.
-- Column area: Pilot area.
-- Column boot_count [1]: Births of the post in the day.
-- Column will_count [1]: Wills of the post in the day: connections that broke.
-- Column last_heard_time [UTC]: Its last birth or heartbeat of the day.
-- Column ingest_events: What befell ingest in the day: time in Hong Kong, kind and instance.
WITH bounds AS (
    SELECT time_bucket(INTERVAL 1 HOUR, $since) AS start, time_bucket(INTERVAL 1 HOUR, $since) + INTERVAL 24 HOUR AS stop
),
hours AS (
    SELECT ledger.* FROM ledger, bounds WHERE window_start >= start AND window_start < stop
),
refusals AS (
    SELECT post_id, stream, window_start, unnest(map_entries(quarantine_reasons)) AS refused FROM hours
),
posts AS (
    SELECT post_id, area, streams
    FROM city.lamppost_entries, bounds
    WHERE kind = 'lamppost' AND valid_from <= start AND (valid_to IS NULL OR valid_to >= stop)
),
heard AS (
    SELECT post_id, stream, sum(expected_count)::BIGINT AS expected_count
    FROM hours
    GROUP BY ALL
    HAVING expected_count > 0
),
losses AS (
    SELECT post_id, stream, 'missing' AS reason, missing_count - awaited_count AS lost_count, window_start FROM hours
    UNION ALL
    SELECT post_id, stream, 'awaited', awaited_count, window_start FROM hours
    UNION ALL
    SELECT post_id, stream, 'dropped', dropped_count, window_start FROM hours
    UNION ALL
    SELECT post_id, stream, refused.key, refused.value::BIGINT, window_start FROM refusals
    UNION ALL
    SELECT post_id, stream, 'silent', 86400 // cadence_s, start
    FROM (SELECT post_id, unnest(streams) AS stream FROM posts)
    JOIN (SELECT stream, cadence_s FROM main.quantities UNION SELECT 'status', 60) USING (stream)
    ANTI JOIN heard USING (post_id, stream)
    CROSS JOIN bounds
    WHERE EXISTS (FROM messages)
),
sums AS (
    SELECT
        post_id, stream, reason,
        sum(lost_count)::BIGINT AS lost_count,
        min(window_start) AS first_hour,
        max(window_start) AS last_hour
    FROM losses
    WHERE lost_count > 0
    GROUP BY ALL
),
told AS (
    SELECT
        post_id,
        count(*) FILTER (kind = 'birth') AS boot_count,
        count(*) FILTER (kind = 'will') AS will_count,
        max(event_time) FILTER (kind <> 'will') AS last_heard_time
    FROM lake.device_status, bounds
    WHERE event_time >= $since AND event_time >= start AND event_time < stop AND NOT is_conflicting
    GROUP BY post_id
),
befell AS (
    SELECT string_agg(
        strftime(timezone('Asia/Hong_Kong', event_time), '%H:%M ') || kind || ' ' || instance, ', ' ORDER BY event_time
    ) AS ingest_events
    FROM quality.ingest_events, bounds
    WHERE event_time >= start AND event_time < stop
)
SELECT
    sums.post_id, sums.stream, reason, lost_count, expected_count,
    100.0::DOUBLE * lost_count / expected_count AS lost_pct, first_hour, last_hour, area,
    coalesce(boot_count, 0) AS boot_count, coalesce(will_count, 0) AS will_count, last_heard_time, ingest_events
FROM sums
LEFT JOIN heard ON heard.post_id = sums.post_id AND heard.stream = sums.stream
LEFT JOIN posts ON posts.post_id = sums.post_id
LEFT JOIN told ON told.post_id = sums.post_id
CROSS JOIN befell
