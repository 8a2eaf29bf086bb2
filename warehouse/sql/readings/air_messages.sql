-- Air and noise messages with a column per quantity: the value where it may be used (flags 1 and 2), else null. What was left
-- out, and why the value is null, left_out says; all values, with their flags, are in observations.
-- Grain: one message
-- Key: post_id, boot_id, seq, event_time
-- Columns: observations
-- Wide: air
-- Column worst_flag: Greatest QARTOD flag of the message's values: 1 good, 2 not evaluated, 3 suspect, 4 fail, 9 missing.
-- Column left_out: Quantities whose value is not shown, each with its flag; null when all are.
-- Reads: observations
SELECT
    post_id, boot_id, seq, any_value(first_seq) AS first_seq, event_time,
    $wide,
    max(flag) AS worst_flag,
    string_agg(quantity || ' ' || flag, ', ' ORDER BY quantity) FILTER (flag NOT IN (1, 2)) AS left_out,
    any_value(received_time) AS received_time
FROM (SELECT * REPLACE (CASE WHEN flag IN (1, 2) THEN value END AS value) FROM observations)
WHERE stream = 'air'
GROUP BY post_id, boot_id, seq, event_time
