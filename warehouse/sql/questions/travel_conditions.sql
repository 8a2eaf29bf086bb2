-- How travel on each road was, hour by hour, and how that compares with the same hour of the same weekday in the other
-- stored weeks. A road's speed is that of all vehicles that its posts saw: space-mean where posts tell 1/v, else mean.
-- The norm is the median of the other weeks, so that one jam does not move it; hours of which less than half landed are
-- not in it. Public holidays are compared with Sundays and with each other. Read ratio below 0.8 with norm_weeks of 3 or
-- more as slower than usual. Reads all of lake.flow_windows, whatever hours are asked for. Exact: never for publication.
-- Grain: one road, direction and hour
-- Key: road_en, direction, window_start
-- Column road_en: Road in English.
-- Column direction: direction_id of the registry.
-- Column window_start [UTC]: Start of the hour.
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column day: Day in Hong Kong, as in calendar.
-- Column hour_hk [h]: Hour of the day in Hong Kong, 0 to 23.
-- Column weekday: Day of the week in Hong Kong, 1 Monday to 7 Sunday.
-- Column speed_kmh [km/h]: Speed of the hour; null when no vehicle had one.
-- Column norm_speed_kmh [km/h]: Median of the same weekday and hour in the other weeks; null without one.
-- Column norm_weeks [1]: Hours that the norm stands on, one a week (of Sundays and holidays there may be more).
-- Column difference_kmh [km/h]: speed_kmh less norm_speed_kmh.
-- Column ratio [1]: speed_kmh divided by norm_speed_kmh.
-- Column level_of_service: congested, slow or smooth by speed_kmh, as in traffic.
-- Column colour: The level's colour on the Transport Department's maps.
-- Column speed_limit_kmh [km/h]: Speed limit; the greatest where the road has several.
-- Column flow_veh_h [veh/h]: Mean flow past one of the posts, over the half-minutes heard.
-- Column vehicle_count [1]: Vehicles that the posts counted; one that passes three posts counts three times.
-- Column post_count [1]: Posts heard in the hour.
-- Column completeness [1]: Half-minutes heard of what these posts' hours have.
WITH spans AS (
    SELECT post_id, direction, road_en, speed_limit_kmh, valid_from, valid_to
    FROM city.directions
    JOIN city.lamppost_entries USING (post_id, valid_from)
),
sums AS (
    SELECT
        road_en, direction, time_bucket(INTERVAL 1 HOUR, window_start) AS window_start,
        max(speed_limit_kmh) AS speed_limit_kmh,
        count(DISTINCT post_id) AS post_count,
        sum(half_minutes) AS half_minutes,
        sum(vehicle_count)::BIGINT AS vehicle_count,
        coalesce(
            sum(inverse_speed_count) / nullif(sum(inverse_speed_sum_h_km), 0),
            sum(speed_sum_kmh) / nullif(sum(speed_count), 0)
        ) AS speed_kmh
    FROM lake.flow_windows
    JOIN spans USING (post_id, direction)
    WHERE window_start >= valid_from AND (valid_to IS NULL OR window_start < valid_to)
    GROUP BY ALL
),
hours AS (
    SELECT
        *,
        make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS window_start_hk,
        vehicle_count * 3600.0::DOUBLE / nullif(half_minutes * 30, 0) AS flow_veh_h,
        least(half_minutes / (120 * post_count), 1.0)::DOUBLE AS completeness,
        CASE WHEN half_minutes >= 60 * post_count THEN speed_kmh END AS sound_speed_kmh
    FROM sums
),
compared AS (
    SELECT
        hours.*,
        median(sound_speed_kmh) OVER other_weeks AS norm_speed_kmh,
        count(sound_speed_kmh) OVER other_weeks AS norm_weeks
    FROM hours
    LEFT JOIN city.calendar ON day = window_start_hk::DATE
    WINDOW other_weeks AS (
        PARTITION BY road_en, direction, hour(window_start_hk),
            CASE WHEN is_public_holiday THEN 7 ELSE isodow(window_start_hk) END
        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW
    )
)
SELECT
    road_en, direction, window_start, window_start_hk, window_start_hk::DATE AS day, hour(window_start_hk) AS hour_hk,
    isodow(window_start_hk) AS weekday, speed_kmh, norm_speed_kmh, norm_weeks, speed_kmh - norm_speed_kmh AS difference_kmh,
    speed_kmh / norm_speed_kmh AS ratio, step AS level_of_service, colour, speed_limit_kmh, flow_veh_h, vehicle_count,
    post_count, completeness
FROM compared
LEFT JOIN main.scales
    ON scale = CASE WHEN speed_limit_kmh >= 70 THEN 'strategic roads' WHEN speed_limit_kmh > 0 THEN 'urban roads' END
    AND speed_kmh >= low AND (high IS NULL OR speed_kmh < high)
