-- Growth of counters from the last minute with a value, of at most ten minutes before, to each minute's end. A fall is
-- a rollover when what was left to the end (plausible_high) and the new value are together no more than can have come;
-- else the counter began anew. More than 40 mm for each minute since (WMO/TD-1236) is a jump: the minute then counts as
-- without a value, so that the way back is no restart, and a jump that stays adds nothing.
-- Grain: one post, quantity and minute
-- Key: post_id, quantity, window_start
-- Reads: counter_minutes
WITH befores AS (
    SELECT *,
        last_value(last_value IGNORE NULLS) OVER before AS value_before,
        last_value(CASE WHEN is_used THEN window_start END IGNORE NULLS) OVER before AS time_before,
        window_start - time_before <= INTERVAL 10 MINUTE AS is_near,
        40 * (1 + CASE WHEN is_near THEN date_diff('minute', time_before, window_start) ELSE 0 END) AS greatest_growth
    FROM counter_minutes
    WINDOW before AS (
        PARTITION BY post_id, quantity ORDER BY window_start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
calm AS (
    SELECT post_id, quantity, window_start, plausible_high, increase, greatest_growth,
        is_used AND increase + CASE
            WHEN is_near IS NOT TRUE THEN 0
            WHEN first_value >= value_before THEN first_value - value_before
            WHEN plausible_high - value_before + first_value <= greatest_growth
            THEN plausible_high - value_before + first_value
            ELSE first_value
        END <= greatest_growth AS is_calm,
        CASE WHEN is_calm THEN first_value END AS first_value,
        CASE WHEN is_calm THEN last_value END AS last_value
    FROM befores
),
again AS (
    SELECT *,
        last_value(last_value IGNORE NULLS) OVER before AS value_before,
        last_value(CASE WHEN is_calm THEN window_start END IGNORE NULLS) OVER before AS time_before,
        window_start - time_before <= INTERVAL 10 MINUTE AS is_near,
        40 * (1 + CASE WHEN is_near THEN date_diff('minute', time_before, window_start) ELSE 0 END) AS greatest_growth
    FROM (SELECT * EXCLUDE greatest_growth FROM calm)
    WINDOW before AS (
        PARTITION BY post_id, quantity ORDER BY window_start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
grown AS (
    SELECT post_id, quantity, window_start, greatest_growth,
        CASE WHEN is_calm THEN increase + CASE
            WHEN is_near IS NOT TRUE THEN 0
            WHEN first_value >= value_before THEN first_value - value_before
            WHEN plausible_high - value_before + first_value <= greatest_growth
            THEN plausible_high - value_before + first_value
            ELSE first_value
        END END AS growth
    FROM again
)
SELECT post_id, quantity, window_start, CASE WHEN growth > greatest_growth THEN 0 ELSE growth END AS growth
FROM grown
