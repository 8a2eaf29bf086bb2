-- Values of the sampled post-hours (temporary table `cells`), and of the twenty minutes before each, which counters
-- look back on; `used` is null where a flag speaks against the value.
-- Grain: one value and sampled hour
-- Key: post_id, hour, quantity, event_time, digest
WITH values_read AS (
    SELECT post_id, quantity, event_time, digest, CASE WHEN flag IN (1, 2) THEN value END AS used
    FROM readings.observations
    WHERE event_time >= $since - INTERVAL 20 MINUTE AND event_time < $until
    UNION ALL
    SELECT post_id, quantity, event_time, digest, CASE WHEN flag IN (1, 2) THEN value END
    FROM (
        UNPIVOT (
            SELECT post_id, event_time, digest, flag, crossings_in_count, crossings_out_count
            FROM readings.footfall
            WHERE event_time >= $since - INTERVAL 20 MINUTE AND event_time < $until
        )
        ON crossings_in_count, crossings_out_count INTO NAME quantity VALUE value
    )
)
SELECT values_read.*, hour, aggregation, cadence_s, plausible_high
FROM values_read
JOIN cells
    ON cells.post_id = values_read.post_id
    AND event_time >= hour - INTERVAL 20 MINUTE AND event_time < hour + INTERVAL 1 HOUR
JOIN main.quantities USING (quantity)
