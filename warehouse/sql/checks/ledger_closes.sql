-- Of each post, stream and hour: expected = accepted + quarantined + dropped + missing, each counted by itself.
-- Grain: one post, stream and hour
-- Key: post_id, stream, window_start, is_keyless
SELECT
    post_id, stream, window_start, is_keyless, expected_count, accepted_count, quarantined_count, dropped_count,
    missing_count
FROM quality.ledger_since($since)
WHERE expected_count <> accepted_count + quarantined_count + dropped_count + missing_count
