-- How many pedestrians passed the posts of tourist areas, day by day, the busiest first. A post is a tourist spot when
-- its area or its English name holds a name of the table tourist_places. Crossings of a counting line, never people
-- present: who crosses twice counts twice. Gaps lower a count: read it beside completeness. Internal and exact: never
-- for publication; the public has noised figures.
-- Grain: one post and day (Hong Kong)
-- Key: post_id, day
-- Column day: Day in Hong Kong, as in calendar.
-- Column rank_of_day [1]: 1 is the post with the most crossings of the day.
-- Column post_id: Lamppost.
-- Column area: Pilot area.
-- Column name_en: Name of the place in English.
-- Column crossings_count [1]: Crossings both ways.
-- Column crossings_in_count [1]: Crossings inwards.
-- Column crossings_out_count [1]: Crossings outwards.
-- Column busiest_hour_hk [h]: Hour of the day with the most crossings, 0 to 23.
-- Column busiest_hour_count [1]: Crossings both ways in that hour.
-- Column crossings_by_hour_hk: Crossings both ways in each hour of the day that was heard, by hour in Hong Kong.
-- Column completeness [1]: Half-minutes used, of the 2,880 of a day.
WITH spots AS (
    SELECT post_id, area, name_en, valid_from, valid_to
    FROM city.lamppost_entries
    WHERE kind = 'lamppost' AND EXISTS (
        FROM city.tourist_places WHERE contains(area, place) OR contains(name_en, place)
    )
),
hours AS (
    SELECT
        post_id, area, name_en,
        make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR AS hour_start,
        sum(value_sum) AS crossings,
        sum(value_sum) FILTER (quantity = 'crossings_in_count') AS crossings_in,
        sum(value_sum) FILTER (quantity = 'crossings_out_count') AS crossings_out,
        sum(value_count) FILTER (quantity = 'crossings_in_count') AS half_minutes
    FROM lake.hours
    JOIN spots USING (post_id)
    WHERE quantity IN ('crossings_in_count', 'crossings_out_count')
        AND window_start >= timezone('Asia/Hong_Kong', date_trunc('day', timezone('Asia/Hong_Kong', $since)))
        AND window_start >= valid_from AND (valid_to IS NULL OR window_start < valid_to)
    GROUP BY ALL
),
days AS (
    SELECT
        hour_start::DATE AS day, post_id, area, name_en,
        sum(crossings)::BIGINT AS crossings_count,
        sum(crossings_in)::BIGINT AS crossings_in_count,
        sum(crossings_out)::BIGINT AS crossings_out_count,
        arg_max(hour(hour_start), (crossings, -hour(hour_start))) AS busiest_hour_hk,
        max(crossings)::BIGINT AS busiest_hour_count,
        map_from_entries(list((hour(hour_start), crossings::BIGINT) ORDER BY hour_start)) AS crossings_by_hour_hk,
        least(sum(half_minutes) / 2880, 1.0)::DOUBLE AS completeness
    FROM hours
    WHERE crossings IS NOT NULL
    GROUP BY ALL
)
SELECT
    day, rank() OVER (PARTITION BY day ORDER BY crossings_count DESC) AS rank_of_day, post_id, area, name_en,
    crossings_count, crossings_in_count, crossings_out_count, busiest_hour_hk, busiest_hour_count,
    crossings_by_hour_hk, completeness
FROM days
