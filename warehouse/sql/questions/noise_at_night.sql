-- Noise by day, evening and night at each post: energy means of the A-weighted levels of one minute (ISO 1996-1) over
-- 07-19, 19-23 and 23-07 in Hong Kong, and the day-evening-night level of Directive 2002/49/EC, Annex I: evenings weigh
-- 5 dB more and nights 10. Hong Kong's night is 23-07 too (Noise Control Ordinance, Cap. 400). A day runs from 07 to 07:
-- the night of a date ends the next morning. The Directive's indicators are means of a year, these are of one day. WHO
-- (Environmental Noise Guidelines, 2018) recommends less than 45 dB of road traffic by night outside dwellings, and 53
-- by l_den; posts stand beside the road, where it is louder. A level is null when less than 75 % of its minutes were
-- used, and l_den when one of the three is.
-- Grain: one post and day from 07 to 07 (Hong Kong)
-- Key: post_id, day
-- Column post_id: Lamppost.
-- Column area: Pilot area.
-- Column day: Day in Hong Kong, as in calendar, on which the 24 hours begin.
-- Column l_night_dba [dB(A)]: Energy mean from 23 to 07.
-- Column l_day_dba [dB(A)]: Energy mean from 07 to 19.
-- Column l_evening_dba [dB(A)]: Energy mean from 19 to 23.
-- Column l_den_dba [dB(A)]: Day-evening-night level.
-- Column loudest_minute_of_night_dba [dB(A)]: Greatest level of a minute from 23 to 07.
-- Column night_completeness [1]: Minutes used, of 480.
-- Column day_completeness [1]: Minutes used, of 720.
-- Column evening_completeness [1]: Minutes used, of 240.
WITH parts AS (
    SELECT
        post_id,
        (make_timestamp(epoch_us(window_start)) + INTERVAL 1 HOUR)::DATE AS day,
        CASE
            WHEN hour(make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR) BETWEEN 7 AND 18 THEN 'day'
            WHEN hour(make_timestamp(epoch_us(window_start)) + INTERVAL 8 HOUR) BETWEEN 19 AND 22 THEN 'evening'
            ELSE 'night'
        END AS part,
        sum(value_count) AS minutes,
        sum(energy_sum) AS energy,
        max(value_max) AS loudest
    FROM lake.hours
    WHERE quantity = 'noise_dba'
        AND window_start >= timezone(
            'Asia/Hong_Kong',
            date_trunc('day', timezone('Asia/Hong_Kong', $since) - INTERVAL 7 HOUR) + INTERVAL 7 HOUR
        )
    GROUP BY ALL
),
days AS (
    SELECT
        post_id, day,
        coalesce(any_value(minutes) FILTER (part = 'day'), 0) / 720 AS day_completeness,
        coalesce(any_value(minutes) FILTER (part = 'evening'), 0) / 240 AS evening_completeness,
        coalesce(any_value(minutes) FILTER (part = 'night'), 0) / 480 AS night_completeness,
        CASE WHEN day_completeness >= 0.75 THEN any_value(energy / minutes) FILTER (part = 'day') END AS day_energy,
        CASE WHEN evening_completeness >= 0.75 THEN any_value(energy / minutes) FILTER (part = 'evening') END
            AS evening_energy,
        CASE WHEN night_completeness >= 0.75 THEN any_value(energy / minutes) FILTER (part = 'night') END
            AS night_energy,
        any_value(loudest) FILTER (part = 'night') AS loudest_minute_of_night_dba
    FROM parts
    GROUP BY post_id, day
)
SELECT
    post_id, area, day,
    10 * log10(night_energy) AS l_night_dba,
    10 * log10(day_energy) AS l_day_dba,
    10 * log10(evening_energy) AS l_evening_dba,
    10 * log10((12 * day_energy + 4 * 10 ** 0.5 * evening_energy + 8 * 10 * night_energy) / 24) AS l_den_dba,
    loudest_minute_of_night_dba,
    least(night_completeness, 1.0)::DOUBLE AS night_completeness,
    least(day_completeness, 1.0)::DOUBLE AS day_completeness,
    least(evening_completeness, 1.0)::DOUBLE AS evening_completeness
FROM days
LEFT JOIN (SELECT post_id, arg_max(area, valid_from) AS area FROM city.lamppost_entries GROUP BY post_id)
    USING (post_id)
