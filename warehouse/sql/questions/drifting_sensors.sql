-- The ten posts whose sensors drift away from their neighbours the most clearly, each with the quantity that shows it.
-- Day by day (Hong Kong) the post's mean is compared with the median of the other posts of its area, of which there must
-- be three; days with less than 75 % of the values are left out, and so are series of less than a week. The slope of that
-- difference over days is by least squares, and t_value is the slope over its standard error (Draper and Smith, Applied
-- Regression Analysis, 3rd ed. 1998, section 1.4), which orders the rows. Only quantities that neighbours share; drifts
-- below the sensor's resolution are left out. There are ten rows even when nothing drifts: among two thousand series of 30
-- days |t| of 5 comes by chance, of 10 days |t| of 8, and days that resemble the day before make |t| greater still. So a
-- row is a reason to look at the sensor, not a verdict. drifting_sensors_since(now() - INTERVAL 30 DAY) reads what is
-- needed for a month.
-- Grain: one post
-- Key: post_id
-- Column drift_rank [1]: 1 is the clearest drift.
-- Column post_id: Lamppost.
-- Column area: Pilot area, whose other posts are the neighbours.
-- Column quantity: Quantity that drifts the most clearly at this post.
-- Column unit: Its unit.
-- Column slope_per_day [as quantity, per day]: Slope of the difference from the neighbours.
-- Column slope_error_per_day [as quantity, per day]: Its standard error, days taken as independent.
-- Column t_value [1]: slope_per_day / slope_error_per_day; null when the days lie on a line exactly.
-- Column drift [as quantity]: Slope times the days between the first and the last.
-- Column last_difference [as quantity]: Post less neighbours on the last day.
-- Column day_count [1]: Days that the slope stands on.
-- Column first_day: First of these, in Hong Kong.
-- Column last_day: Last of these, in Hong Kong.
-- Column neighbour_count [1]: Neighbours on the day that had the fewest.
-- Column model: Model of the sensor by the registry's newest entry.
-- Column calibrated_on: Day of its last calibration by that entry.
WITH days AS (
    SELECT
        post_id, area, quantity, (make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR)::DATE AS day,
        sum(value_sum) / sum(value_count) AS mean
    FROM lake.hours
    JOIN city.lamppost_entries USING (post_id)
    WHERE quantity IN (
            'temperature_c', 'humidity_pct', 'pressure_hpa', 'o3_ug_m3', 'so2_ug_m3', 'pm2_5_ug_m3', 'pm10_ug_m3'
        )
        AND window_start >= timezone('Asia/Hong_Kong', date_trunc('day', timezone('Asia/Hong_Kong', $since)))
        AND window_start >= valid_from AND (valid_to IS NULL OR window_start < valid_to)
    GROUP BY ALL
    HAVING sum(value_count) >= 0.75 * 1440
),
differences AS (
    SELECT
        post_id, area, quantity, day, day - DATE '1970-01-01' AS day_number,
        mean - median(mean) OVER neighbours AS difference,
        count(mean) OVER neighbours AS neighbour_count
    FROM days
    WINDOW neighbours AS (
        PARTITION BY area, quantity, day
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW
    )
    QUALIFY neighbour_count >= 3
),
fits AS (
    SELECT
        post_id, quantity,
        arg_max(area, day) AS area,
        count(*) AS day_count,
        min(day) AS first_day,
        max(day) AS last_day,
        arg_max(difference, day) AS last_difference,
        min(neighbour_count) AS neighbour_count,
        regr_slope(difference, day_number) AS slope_per_day,
        -- rounding may take the sum of squares that is left a little below 0
        sqrt(
            greatest(0, regr_syy(difference, day_number) - regr_sxy(difference, day_number) * slope_per_day)
            / (day_count - 2) / regr_sxx(difference, day_number)
        ) AS slope_error_per_day
    FROM differences
    GROUP BY post_id, quantity
    HAVING count(*) >= 7
),
ranked AS (
    SELECT
        *,
        slope_per_day / nullif(slope_error_per_day, 0) AS t_value,
        slope_per_day * (last_day - first_day) AS drift
    FROM fits
    JOIN main.quantities USING (quantity)
    WHERE abs(drift) >= resolution
    QUALIFY row_number() OVER (PARTITION BY post_id ORDER BY abs(t_value) DESC NULLS FIRST, quantity) = 1
),
sensors AS (
    SELECT
        post_id, quantity,
        arg_max(model, valid_from) AS model,
        arg_max_null(calibrated_on, valid_from) AS calibrated_on
    FROM (SELECT *, unnest(quantities) AS quantity FROM city.sensors)
    GROUP BY ALL
)
SELECT
    row_number() OVER (ORDER BY abs(t_value) DESC NULLS FIRST, post_id) AS drift_rank,
    post_id, area, quantity, unit, slope_per_day, slope_error_per_day, t_value, drift, last_difference, day_count,
    first_day, last_day, neighbour_count, model, calibrated_on
FROM ranked
LEFT JOIN sensors USING (post_id, quantity)
QUALIFY drift_rank <= 10
ORDER BY drift_rank
