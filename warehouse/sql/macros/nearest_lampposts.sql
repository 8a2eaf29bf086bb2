-- The lampposts that stand now, nearest first, by great-circle distance on a sphere (haversine, radius 6,371,008.8 m:
-- within 0.5 % of the ellipsoid). Recorded detectors are left out.
-- Parameter lat [deg]: Latitude, WGS84.
-- Parameter lon [deg]: Longitude, WGS84.
-- Parameter n [1]: How many at most.
-- Grain: one lamppost
-- Key: post_id
-- Column post_id: Lamppost.
-- Column distance_m [m]: Distance from the place asked for.
-- Column name_en: Name in English.
-- Column name_tc: Name in traditional Chinese.
-- Column area: Pilot area.
-- Column district_code: Code in districts.
-- Column latitude [deg]: WGS84 latitude.
-- Column longitude [deg]: WGS84 longitude.
-- Column streams: Streams that the post may send.
WITH distances AS (
    SELECT
        *,
        2 * 6371008.8 * asin(sqrt(least(
            1,
            sin(radians(latitude - lat) / 2) ** 2
            + cos(radians(lat)) * cos(radians(latitude)) * sin(radians(longitude - lon) / 2) ** 2
        ))) AS distance_m
    FROM city.lampposts
    WHERE kind = 'lamppost' AND lat IS NOT NULL AND lon IS NOT NULL
)
SELECT post_id, distance_m, name_en, name_tc, area, district_code, latitude, longitude, streams
FROM distances
QUALIFY row_number() OVER (ORDER BY distance_m, post_id) <= n
ORDER BY distance_m, post_id
