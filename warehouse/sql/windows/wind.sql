-- Wind of windows of 5, 15 and 60 minutes (choose by period_s): scalar and vector means side by side. Directions are
-- where it comes from, in (0, 360] with 360 = north; direction_deg is 0 when all is calm, null when they cancel out.
-- Grain: one post, period and window
-- Key: post_id, period_s, window_start
-- Column window_start [UTC]: Start of the window [start, start + period).
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column period_s [s]: Length of the window.
-- Column post_id: Lamppost.
-- Column mean_speed_ms [m/s]: Scalar mean speed (Campbell OutputOpt 0).
-- Column direction_deg [deg]: Direction of the mean unit vector of what is not calm.
-- Column direction_sd_deg [deg]: Standard deviation of the direction by Yamartino (1984), of what is not calm.
-- Column vector_speed_ms [m/s]: Length of the mean wind vector, of messages with both speed and direction used.
-- Column resultant_direction_deg [deg]: Direction of that vector; 0 when it has no length.
-- Column gust_ms [m/s]: Greatest 3-second mean of the speed.
-- Column value_count [1]: Messages with both speed and direction used.
-- Column speed_count [1]: Speeds used.
-- Column direction_count [1]: Directions used, calm ones too.
-- Column calm_count [1]: Directions of these that are calm.
-- Column gust_count [1]: Gusts used.
-- Column flagged_count [1]: Speeds, directions and gusts left out: flags 3, 4 and 9.
-- Column expected_count [1]: Messages that the cadence promises for the whole window.
-- Column completeness [1]: value_count / expected_count, at most 1.
-- Column last_event_time [UTC]: Event time of the newest value, used or not.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the five-minute windows in it changed after they were announced final, in all.
-- Reads: merged_values
WITH together AS (
    SELECT
        window_start, period_s, post_id,
        any_value(value) FILTER (quantity = 'wind_speed_ms') AS mean_speed_ms,
        any_value(value) FILTER (quantity = 'wind_direction_deg') AS direction_deg,
        any_value(value) FILTER (quantity = 'wind_gust_ms') AS gust_ms,
        coalesce(sum(value_count) FILTER (quantity = 'wind_speed_ms'), 0)::BIGINT AS speed_count,
        coalesce(sum(value_count) FILTER (quantity = 'wind_direction_deg'), 0)::BIGINT AS direction_count,
        coalesce(sum(value_count) FILTER (quantity = 'wind_gust_ms'), 0)::BIGINT AS gust_count,
        -- the state below is the direction's: null for the other two
        coalesce(max(unit_count), 0) AS unit_count,
        coalesce(max(vector_count), 0) AS value_count,
        max(sin_sum) AS sin_sum,
        max(cos_sum) AS cos_sum,
        max(sin_speed_sum_ms) AS sin_speed_sum_ms,
        max(cos_speed_sum_ms) AS cos_speed_sum_ms,
        sum(flagged_count)::BIGINT AS flagged_count,
        max(expected_count) AS expected_count,
        any_value(is_final) AS is_final,
        max(revision) AS revision,
        any_value(data_through) AS data_through,
        max(last_event_time) AS last_event_time
    FROM merged_values
    WHERE quantity IN ('wind_speed_ms', 'wind_direction_deg', 'wind_gust_ms')
    GROUP BY ALL
),
measured AS (
    SELECT
        *,
        -- 1 - |mean unit vector|^2, which rounding may take a little below 0
        sqrt(greatest(0, 1 - (sin_sum * sin_sum + cos_sum * cos_sum) / nullif(unit_count * unit_count, 0))) AS scatter,
        sqrt(sin_speed_sum_ms * sin_speed_sum_ms + cos_speed_sum_ms * cos_speed_sum_ms) / nullif(value_count, 0)
            AS vector_speed_ms,
        atan2(sin_speed_sum_ms, cos_speed_sum_ms) AS resultant
    FROM together
)
SELECT
    window_start, make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
    period_s, post_id, mean_speed_ms, direction_deg,
    CASE WHEN unit_count > 0
        THEN degrees(asin(least(scatter, 1)) * (1 + (2 / sqrt(3) - 1) * scatter ** 3))
    END AS direction_sd_deg,
    vector_speed_ms,
    CASE
        WHEN value_count = 0 THEN NULL
        WHEN vector_speed_ms > 1e-9 THEN degrees(resultant) + CASE WHEN resultant <= 0 THEN 360 ELSE 0 END
        ELSE 0
    END AS resultant_direction_deg,
    gust_ms, value_count, speed_count, direction_count, direction_count - unit_count AS calm_count, gust_count,
    flagged_count, expected_count,
    least(value_count / expected_count, 1.0)::DOUBLE AS completeness,
    is_final, revision, data_through, last_event_time
FROM measured
WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
