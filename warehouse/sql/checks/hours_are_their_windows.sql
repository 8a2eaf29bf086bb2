-- Hours are what their windows add up to, each quantity by its own method; none is missing and none is too many. Hours
-- whose windows are past their retention are not asked.
-- Grain: one hour
-- Key: post_id, quantity, window_start
WITH merged AS (
    SELECT post_id, quantity, time_bucket(INTERVAL 1 HOUR, window_start) AS window_start,
        sum(value_count) AS value_count, sum(flagged_count) AS flagged_count, sum(value_sum) AS value_sum,
        sum(energy_sum) AS energy_sum, sum(sin_sum) AS sin_sum, sum(cos_sum) AS cos_sum,
        sum(unit_count) AS unit_count, min(value_min) AS value_min, max(value_max) AS value_max,
        sum(increase) AS increase, max(last_event_time) AS last_event_time
    FROM lake.windows
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
    GROUP BY ALL
),
wanted AS (
    SELECT post_id, quantity, window_start, aggregation, value_count, flagged_count, value_min, value_max,
        last_event_time,
        value_of(
            aggregation, value_count, value_sum, energy_sum, sin_sum, cos_sum, unit_count, value_max, increase
        ) AS value
    FROM merged
    JOIN main.quantities USING (quantity)
),
stored AS (
    SELECT *
    FROM lake.hours
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
)
SELECT post_id, quantity, window_start,
    stored.value AS value, wanted.value AS of_windows,
    stored.value_count AS value_count, wanted.value_count AS count_of_windows
FROM stored
FULL JOIN wanted USING (post_id, quantity, window_start)
LEFT JOIN main.quantities USING (quantity)
LEFT JOIN quality.removed ON table_name = 'windows' AND removed.stream = quantities.stream
WHERE coalesce(window_start >= kept_from, true) AND NOT coalesce(
    stored.value_count = wanted.value_count AND stored.flagged_count = wanted.flagged_count
    AND stored.last_event_time = wanted.last_event_time
    AND is_near(stored.value_min, wanted.value_min) AND is_near(stored.value_max, wanted.value_max)
    AND CASE WHEN wanted.aggregation = 'circular'
        THEN is_near_direction(stored.value, wanted.value)
        ELSE is_near(stored.value, wanted.value) END,
    false
)
