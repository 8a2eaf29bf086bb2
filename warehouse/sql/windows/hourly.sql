-- Values of whole hours, by each quantity's own method.
-- Grain: one post, quantity and hour (UTC)
-- Key: post_id, quantity, window_start
-- Columns: hours
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column stream: Stream that carries the quantity.
-- Column value_mean [as quantity]: Mean of the values used, whatever the quantity's method; null when circular.
-- Column value_sd [as quantity]: Their sample standard deviation; null when circular or fewer than two.
-- Column increase [as quantity]: Growth of a counter, from the last value before the hour; resets and rollovers add.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Reads: final
SELECT
    window_start, make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    period_s, post_id, stream, quantity, value,
    value_sum / nullif(value_count, 0) AS value_mean,
    CASE WHEN value_count > 1 THEN
        sqrt(greatest(0, value_sum_squares - value_sum * value_sum / value_count) / (value_count - 1))
    END AS value_sd,
    value_min, value_max, increase, value_count, flagged_count, expected_count, completeness,
    coalesce(window_start + to_seconds(period_s) <= final_through, false) AS is_final,
    revision, data_through, last_event_time
FROM lake.hours
JOIN (SELECT quantity, stream FROM main.quantities) USING (quantity)
LEFT JOIN final USING (stream)
WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
