-- Windows of $period_s seconds of the sampled post-hours (temporary table `cells`: post_id, hour), straight from the
-- readings: sums, counts, extremes and the value by each quantity's own method.
-- Grain: one post, quantity and window
-- Key: post_id, quantity, window_start
-- Reads: counter_growth
WITH messages AS (
    SELECT * FROM sampled_values WHERE event_time >= hour
),
speeds AS (
    SELECT post_id, event_time, digest, any_value(used) AS speed
    FROM messages
    WHERE quantity = 'wind_speed_ms'
    GROUP BY ALL
),
vectors AS (
    SELECT
        messages.*,
        aggregation = 'circular' AS is_circular,
        -- calm air has no direction, and no vector
        CASE WHEN is_circular AND used <> 0 THEN sin(radians(used)) END AS sine,
        CASE WHEN is_circular AND used <> 0 THEN cos(radians(used)) END AS cosine,
        CASE WHEN is_circular AND used IS NOT NULL THEN speed END AS speed
    FROM messages
    LEFT JOIN speeds USING (post_id, event_time, digest)
),
growths AS (
    SELECT post_id, quantity, time_bucket(to_seconds($period_s), window_start) AS window_start, sum(growth) AS growth
    FROM counter_growth
    GROUP BY ALL
),
summed AS (
    SELECT
        post_id, quantity, time_bucket(to_seconds($period_s), event_time) AS window_start,
        any_value(aggregation) AS aggregation,
        any_value(cadence_s) AS cadence_s,
        count(used) AS value_count,
        count(*) - count(used) AS flagged_count,
        CASE WHEN NOT any_value(is_circular) THEN sum(used) END AS value_sum,
        CASE WHEN NOT any_value(is_circular) THEN sum(used * used) END AS value_sum_squares,
        CASE WHEN any_value(aggregation) = 'energy mean' THEN sum(10 ** (used / 10)) END AS energy_sum,
        CASE WHEN any_value(is_circular) AND count(used) > 0 THEN coalesce(sum(sine), 0) END AS sin_sum,
        CASE WHEN any_value(is_circular) AND count(used) > 0 THEN coalesce(sum(cosine), 0) END AS cos_sum,
        CASE WHEN any_value(is_circular) AND count(used) > 0 THEN count(sine) END AS unit_count,
        CASE WHEN any_value(is_circular) AND count(used) > 0 THEN coalesce(sum(sine * speed), 0) END AS sin_speed_sum_ms,
        CASE WHEN any_value(is_circular) AND count(used) > 0 THEN coalesce(sum(cosine * speed), 0) END AS cos_speed_sum_ms,
        CASE WHEN any_value(is_circular) AND count(used) > 0 THEN count(speed) END AS vector_count,
        min(used) AS value_min,
        max(used) AS value_max,
        arg_min(used, (event_time, digest)) AS first_value,
        arg_max(used, (event_time, digest)) AS last_value,
        max(event_time) AS last_event_time
    FROM vectors
    GROUP BY ALL
)
SELECT
    summed.* EXCLUDE (aggregation, cadence_s),
    growth AS increase,
    $period_s // cadence_s AS expected_count,
    least(value_count / ($period_s // cadence_s), 1.0)::DOUBLE AS completeness,
    CASE
        WHEN value_count = 0 THEN NULL
        WHEN aggregation = 'mean' THEN value_sum / value_count
        WHEN aggregation = 'circular' AND unit_count = 0 THEN 0
        WHEN aggregation = 'circular' AND sqrt(sin_sum ** 2 + cos_sum ** 2) > 1e-9 * unit_count
        THEN degrees(atan2(sin_sum, cos_sum)) + CASE WHEN atan2(sin_sum, cos_sum) <= 0 THEN 360 ELSE 0 END
        WHEN aggregation = 'energy mean' THEN 10 * log10(energy_sum / value_count)
        WHEN aggregation = 'sum' THEN value_sum
        WHEN aggregation = 'maximum' THEN value_max
        WHEN aggregation = 'counter difference' THEN growth
    END AS value
FROM summed
LEFT JOIN growths USING (post_id, quantity, window_start)
