-- Air Quality Health Index by Hong Kong's formula, from the means of three hours, each hour anew. Null when one of the
-- five pollutants has less than 75 % of its values. Which betas and bands apply is told by the window's end.
-- Grain: one post and three-hour window
-- Key: post_id, window_end
-- Column window_start [UTC]: Start of the three hours.
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column window_end [UTC]: Their end.
-- Column period_s [s]: Length of the window.
-- Column post_id: Lamppost.
-- Column aqhi: Index, 1 to 10 and 10+; null when it cannot be said.
-- Column health_risk: low, moderate, high, very high or serious.
-- Column added_risk_pct [%]: Added health risk: NO2 + SO2 + O3 + the greater of PM10 and PM2.5.
-- Column reason: Why the index is null: the pollutants below 75 % data capture.
-- Column no2_ug_m3 [ug/m3]: Three-hour mean; null below 75 % data capture.
-- Column o3_ug_m3 [ug/m3]: Three-hour mean; null below 75 % data capture.
-- Column so2_ug_m3 [ug/m3]: Three-hour mean; null below 75 % data capture.
-- Column pm10_ug_m3 [ug/m3]: Three-hour mean; null below 75 % data capture.
-- Column pm2_5_ug_m3 [ug/m3]: Three-hour mean; null below 75 % data capture.
-- Column value_count [1]: Values used, of all five.
-- Column flagged_count [1]: Values left out, of all five: flags 3, 4 and 9.
-- Column expected_count [1]: Values that the cadence promises, of all five.
-- Column completeness [1]: The least of the five pollutants' value_count / expected_count.
-- Column last_event_time [UTC]: Event time of the newest value, used or not.
-- Column valid_from [UTC]: Since when the betas and bands apply that were used.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the five-minute windows of a pollutant changed after they were announced final.
-- Reads: merged_values
WITH threes AS (
    SELECT
        post_id, quantity, window_start + INTERVAL 1 HOUR AS window_end,
        sum(value_sum) OVER past AS value_sum,
        sum(value_count) OVER past AS value_count,
        sum(flagged_count) OVER past AS flagged_count,
        3 * expected_count AS expected_count,
        is_final, data_through, last_event_time,
        sum(revision) OVER past AS revision
    FROM merged_values
    WHERE period_s = 3600 AND quantity IN (SELECT quantity FROM main.aqhi_coefficients)
    WINDOW past AS (
        PARTITION BY post_id, quantity ORDER BY window_start RANGE BETWEEN INTERVAL 2 HOUR PRECEDING AND CURRENT ROW
    )
),
means AS (
    SELECT
        *,
        CASE WHEN value_count >= 0.75 * expected_count THEN value_sum / value_count END AS mean
    FROM threes
    WHERE window_end > time_bucket(INTERVAL 1 HOUR, $since)
),
cells AS (
    SELECT DISTINCT post_id, window_end FROM means
),
-- every pollutant of the edition, there or not
risks AS (
    SELECT
        post_id, window_end, valid_from, coefficients.quantity, mean, value_count, flagged_count, expected_count,
        is_final, revision, data_through, last_event_time,
        (exp(beta * mean) - 1) * 100 AS risk_pct,
        coefficients.quantity IN ('pm10_ug_m3', 'pm2_5_ug_m3') AS is_particle
    FROM cells
    JOIN main.aqhi_coefficients AS coefficients
        ON window_end > valid_from AND (valid_to IS NULL OR window_end <= valid_to)
    LEFT JOIN means USING (post_id, window_end, quantity)
),
added AS (
    SELECT
        post_id, window_end, valid_from,
        CASE WHEN count(mean) = count(*)
            THEN sum(risk_pct) FILTER (NOT is_particle) + max(risk_pct) FILTER (is_particle)
        END AS added_risk_pct,
        string_agg(quantity, ', ' ORDER BY quantity) FILTER (mean IS NULL) AS lacking,
        any_value(mean) FILTER (quantity = 'no2_ug_m3') AS no2_ug_m3,
        any_value(mean) FILTER (quantity = 'o3_ug_m3') AS o3_ug_m3,
        any_value(mean) FILTER (quantity = 'so2_ug_m3') AS so2_ug_m3,
        any_value(mean) FILTER (quantity = 'pm10_ug_m3') AS pm10_ug_m3,
        any_value(mean) FILTER (quantity = 'pm2_5_ug_m3') AS pm2_5_ug_m3,
        coalesce(sum(value_count), 0)::BIGINT AS value_count,
        coalesce(sum(flagged_count), 0)::BIGINT AS flagged_count,
        (max(expected_count) * count(*))::BIGINT AS expected_count,
        least(min(coalesce(value_count / expected_count, 0)), 1.0)::DOUBLE AS completeness,
        -- one stream, of which an announcement speaks as a whole; of pollutants that are absent nothing is known
        bool_or(is_final) AS is_final,
        max(revision)::INTEGER AS revision,
        any_value(data_through) AS data_through,
        max(last_event_time) AS last_event_time
    FROM risks
    GROUP BY ALL
)
SELECT
    window_end - INTERVAL 3 HOUR AS window_start,
    make_timestamp(epoch_us(window_end)) + INTERVAL 5 HOUR AS window_start_hk,
    window_end, 10800 AS period_s, post_id, aqhi, health_risk,
    added_risk_pct, lacking || ': below 75 % data capture' AS reason,
    no2_ug_m3, o3_ug_m3, so2_ug_m3, pm10_ug_m3, pm2_5_ug_m3,
    value_count, flagged_count, expected_count, completeness, is_final, revision, data_through, last_event_time,
    added.valid_from
FROM added
LEFT JOIN main.aqhi_bands AS bands
    ON bands.valid_from = added.valid_from
    AND (above_pct IS NULL OR added_risk_pct > above_pct)
    AND (up_to_pct IS NULL OR added_risk_pct <= up_to_pct)
    AND added_risk_pct IS NOT NULL
