-- Values of weather and air messages, without conflicting copies; select flag IN (1, 2) for good ones. The flag is the
-- worse of what the message alone and what the hour before it (view flags) say; of two values that contradict each other
-- the hour may clear one.
-- Grain: one quantity of one message
-- Key: stream, post_id, boot_id, seq, event_time, quantity
-- Columns: observations
-- Column event_time_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
WITH limits AS (
    SELECT post_id, quantity, window_start,
        any_value(quantity IN (SELECT quantity FROM main.quantities WHERE aggregation = 'circular')) AS is_circular,
        coalesce(max(flag) FILTER (accepted_low IS NULL), 0) AS whole_flag,
        max(accepted_low) FILTER (flag = 1) AS low_1, min(accepted_high) FILTER (flag = 1) AS high_1,
        max(accepted_low) FILTER (flag = 3) AS low_3, min(accepted_high) FILTER (flag = 3) AS high_3,
        max(accepted_low) FILTER (flag = 4) AS low_4, min(accepted_high) FILTER (flag = 4) AS high_4
    FROM lake.flags
    GROUP BY ALL
)
SELECT
    post_id, stream, boot_id, seq, first_seq, event_time, make_timestamp(epoch_us(event_time)) + INTERVAL 8 HOUR AS event_time_hk,
    quantity, value,
    CASE
        WHEN flag = 3 AND value BETWEEN low_1 AND high_1 THEN 1
        WHEN flag NOT IN (1, 2) OR is_circular IS NULL THEN flag
        -- limits of directions are an arc: they may go below 0 and over 360
        WHEN CASE WHEN is_circular
            THEN abs(((value - (low_4 + high_4) / 2 + 180) % 360 + 360) % 360 - 180) > (high_4 - low_4) / 2
            ELSE value < low_4 OR value > high_4 END THEN 4
        WHEN CASE WHEN is_circular
            THEN abs(((value - (low_3 + high_3) / 2 + 180) % 360 + 360) % 360 - 180) > (high_3 - low_3) / 2
            ELSE value < low_3 OR value > high_3 END THEN greatest(3, whole_flag)
        ELSE greatest(flag, whole_flag)
    END::TINYINT AS flag,
    received_time, digest
FROM (SELECT *, time_bucket(INTERVAL 1 MINUTE, event_time) AS window_start FROM lake.observations)
LEFT JOIN limits USING (post_id, quantity, window_start)
WHERE NOT is_conflicting
