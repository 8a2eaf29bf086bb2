-- Values of weather and air messages, without conflicting copies; select flag IN (1, 2) for good ones.
-- Grain: one quantity of one message
-- Key: stream, post_id, boot_id, seq, event_time, quantity
-- Columns: observations
SELECT
    post_id, stream, boot_id, seq, first_seq, event_time, quantity, value, flag, received_time,
    digest
FROM lake.observations
WHERE NOT is_conflicting
