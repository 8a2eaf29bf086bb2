-- What rain does to speed: quarter hours by the rain that fell at the very post that saw the traffic, in WMO's classes.
-- Each is compared with the median of the dry quarter hours of the same post, direction and hour of day in Hong Kong,
-- weekdays and weekends apart; that takes out the rush hours and the road, not the wet road after the rain. Quarter hours
-- count with at least 12 minutes of rain gauge and 15 half-minutes of traffic. Neighbouring posts and quarter hours share
-- a shower: with less than a hundred quarter hours a difference says little. Rain is not flagged: violent rain at one post
-- (post_count) is more often a gauge that runs away.
-- Grain: one area, road (all of the area's roads together, too) and class of rain
-- Key: area, road_en, rain_class
-- Column area: Pilot area.
-- Column road_en: Road in English; `all roads`: of the area.
-- Column rain_class: dry, light, moderate, heavy or violent: step of the scale rain intensity.
-- Column from_mm_h [mm/h]: Where the class begins.
-- Column quarter_hours [1]: Quarter hours of a post and direction.
-- Column post_count [1]: Posts that these were seen at.
-- Column vehicle_count [1]: Vehicles counted in them.
-- Column mean_speed_kmh [km/h]: Mean of their speeds, which are space-mean speeds, else mean speeds.
-- Column median_speed_kmh [km/h]: Median of these.
-- Column compared_count [1]: Quarter hours that have dry ones to be compared with.
-- Column difference_kmh [km/h]: Mean of their speeds less those of the dry ones.
-- Column difference_pct [%]: The same as a share of the dry speed.
WITH rain AS (
    SELECT
        post_id, time_bucket(INTERVAL 15 MINUTE, window_start) AS window_start, 4 * sum(increase) AS rain_mm_h
    FROM lake.windows
    WHERE quantity = 'rain_mm' AND window_start >= time_bucket(INTERVAL 15 MINUTE, $since)
    GROUP BY ALL
    HAVING sum(value_count) >= 12
),
spans AS (
    SELECT post_id, direction, area, road_en, valid_from, valid_to
    FROM city.directions
    JOIN city.lamppost_entries USING (post_id, valid_from)
),
cells AS (
    SELECT
        post_id, direction, area, road_en, step AS rain_class, low AS from_mm_h, vehicle_count,
        coalesce(space_mean_speed_kmh, mean_speed_kmh) AS speed_kmh,
        hour(make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR) AS hour_hk,
        isodow(make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR) >= 6 AS is_weekend
    FROM lake.flow_windows
    JOIN rain USING (post_id, window_start)
    JOIN spans USING (post_id, direction)
    JOIN main.scales ON scale = 'rain intensity' AND rain_mm_h >= low AND (high IS NULL OR rain_mm_h < high)
    WHERE half_minutes >= 15 AND speed_kmh IS NOT NULL
        AND window_start >= valid_from AND (valid_to IS NULL OR window_start < valid_to)
        AND window_start >= time_bucket(INTERVAL 15 MINUTE, $since)
),
dry AS (
    SELECT post_id, direction, hour_hk, is_weekend, median(speed_kmh) AS dry_speed_kmh
    FROM cells
    WHERE rain_class = 'dry'
    GROUP BY ALL
)
SELECT
    area, CASE WHEN grouping(road_en) = 1 THEN 'all roads' ELSE road_en END AS road_en, rain_class, from_mm_h,
    count(*) AS quarter_hours,
    count(DISTINCT post_id) AS post_count,
    sum(vehicle_count)::BIGINT AS vehicle_count,
    avg(speed_kmh) AS mean_speed_kmh,
    median(speed_kmh) AS median_speed_kmh,
    count(dry_speed_kmh) AS compared_count,
    avg(speed_kmh - dry_speed_kmh) AS difference_kmh,
    avg(100 * (speed_kmh / dry_speed_kmh - 1)) AS difference_pct
FROM cells
LEFT JOIN dry USING (post_id, direction, hour_hk, is_weekend)
GROUP BY GROUPING SETS ((area, cells.road_en, rain_class, from_mm_h), (area, rain_class, from_mm_h))
