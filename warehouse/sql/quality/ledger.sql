-- Did we lose anything: what each post has sent in an hour and what became of it, over distinct seq.
-- expected = accepted + quarantined + dropped + missing, each counted by itself: expected from where boots start and
-- end, cut where the hour of what landed changes; missing and dropped by a search for gaps (missing_ranges and
-- dropped_ranges hold the seqs). Unlanded seqs belong to the hour of the next lower seq that landed. Messages that do
-- not tell their stream, boot and seq stand in rows of their own (is_keyless): nobody knows which seq they were.
-- ledger_since(t) is the same from t on, from messages of t less a day: it does not read the whole lake. A post that
-- was silent for longer than that day shows the gap before its return there, and here in the hour that it fell silent.
-- Grain: one post, stream and hour (UTC); messages without a key apart
-- Key: post_id, stream, window_start, is_keyless
-- Reads: messages, refused, boot_streams, edges, unlanded
-- Column window_start [UTC]: Start of the hour.
-- Column post_id: Lamppost; of keyless messages as far as their topic tells, else null.
-- Column stream: Stream; of keyless messages as far as their topic tells, else null.
-- Column is_keyless: Whether the row counts messages that do not tell which seq they were.
-- Column expected_count [1]: Seqs that the device has given.
-- Column accepted_count [1]: Messages of which a reading stands in the lake.
-- Column quarantined_count [1]: Messages that were refused, by their own key.
-- Column dropped_count [1]: Messages that the device has reported as dropped and that never landed.
-- Column missing_count [1]: Messages that never landed and that nothing explains.
-- Column awaited_count [1]: Those of missing_count that the device may still hold, so that they may yet come.
-- Column keyless_count [1]: Refused messages that do not tell which seq they were.
-- Column duplicate_count [1]: Copies that landed besides the first, the same bytes.
-- Column conflicting_count [1]: Other bytes under a seq that has landed already; another time is other bytes.
-- Column late_minutes_count [1]: Accepted messages received 2 minutes to 1 hour after their event_time.
-- Column late_hours_count [1]: Accepted messages received 1 hour to 1 day after their event_time.
-- Column late_days_count [1]: Accepted messages received 1 day or more after their event_time.
-- Column quarantine_reasons: Refused messages of the row by reason.
WITH landed AS (
    SELECT post_id, stream, window_start, false AS is_keyless,
        count(*) FILTER (status = 'accepted') AS accepted_count,
        count(*) FILTER (status = 'quarantined') AS quarantined_count,
        sum(duplicate_count) AS duplicate_count,
        sum(conflicting_count) AS conflicting_count,
        count(*) FILTER (
            status = 'accepted' AND received_time - event_time >= INTERVAL 2 MINUTE
            AND received_time - event_time < INTERVAL 1 HOUR
        ) AS late_minutes_count,
        count(*) FILTER (
            status = 'accepted' AND received_time - event_time >= INTERVAL 1 HOUR
            AND received_time - event_time < INTERVAL 24 HOUR
        ) AS late_hours_count,
        count(*) FILTER (
            status = 'accepted' AND received_time - event_time >= INTERVAL 24 HOUR
        ) AS late_days_count,
        histogram(reason) FILTER (status = 'quarantined') AS quarantine_reasons
    FROM messages
    GROUP BY ALL
),
marks AS (
    SELECT post_id, stream, boot_id, first_seq AS seq, window_start, 0 AS place FROM boot_streams
    UNION ALL
    SELECT post_id, stream, boot_id, seq, window_start, 1 FROM edges WHERE is_first_of_hour
),
stretches AS (
    SELECT post_id, stream, marks.window_start AS window_start,
        coalesce(lead(seq) OVER (PARTITION BY post_id, stream, boot_id ORDER BY seq, place), last_seq + 1) - seq AS seq_count
    FROM marks
    JOIN boot_streams USING (post_id, stream, boot_id)
),
parts AS (
    FROM landed
    UNION ALL BY NAME
    SELECT post_id, stream, window_start, false AS is_keyless, sum(seq_count) AS expected_count
    FROM stretches
    WHERE seq_count > 0
    GROUP BY ALL
    UNION ALL BY NAME
    SELECT post_id, stream, window_start, false AS is_keyless,
        sum(seq_count) FILTER (status = 'dropped') AS dropped_count,
        sum(seq_count) FILTER (status = 'missing') AS missing_count,
        sum(seq_count) FILTER (is_awaited) AS awaited_count
    FROM unlanded
    GROUP BY ALL
    UNION ALL BY NAME
    SELECT post_id, stream, time_bucket(INTERVAL 1 HOUR, least(event_time, received_time)) AS window_start,
        true AS is_keyless,
        count(*) AS keyless_count,
        sum(duplicate_count) AS duplicate_count,
        histogram(reason) AS quarantine_reasons
    FROM refused
    WHERE NOT has_key
    GROUP BY ALL
)
-- a device may claim seqs up to 2^53: a thousand such claims must not keep the others from being counted
SELECT
    window_start, post_id, stream, is_keyless,
    least(coalesce(sum(expected_count), 0), 9e18::HUGEINT)::BIGINT AS expected_count,
    coalesce(sum(accepted_count), 0)::BIGINT AS accepted_count,
    coalesce(sum(quarantined_count), 0)::BIGINT AS quarantined_count,
    least(coalesce(sum(dropped_count), 0), 9e18::HUGEINT)::BIGINT AS dropped_count,
    least(coalesce(sum(missing_count), 0), 9e18::HUGEINT)::BIGINT AS missing_count,
    least(coalesce(sum(awaited_count), 0), 9e18::HUGEINT)::BIGINT AS awaited_count,
    coalesce(sum(keyless_count), 0)::BIGINT AS keyless_count,
    coalesce(sum(duplicate_count), 0)::BIGINT AS duplicate_count,
    coalesce(sum(conflicting_count), 0)::BIGINT AS conflicting_count,
    coalesce(sum(late_minutes_count), 0)::BIGINT AS late_minutes_count,
    coalesce(sum(late_hours_count), 0)::BIGINT AS late_hours_count,
    coalesce(sum(late_days_count), 0)::BIGINT AS late_days_count,
    coalesce(max(quarantine_reasons), MAP {}) AS quarantine_reasons
FROM parts
WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
GROUP BY ALL
