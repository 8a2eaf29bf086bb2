-- The pilot areas: how many lampposts stand in each now, and where.
-- Grain: one area
-- Key: area
-- Column area: Pilot area.
-- Column post_count [1]: Lampposts.
-- Column districts: Codes of the districts that they stand in.
-- Column west [deg]: Least longitude of a post, WGS84.
-- Column south [deg]: Least latitude.
-- Column east [deg]: Greatest longitude.
-- Column north [deg]: Greatest latitude.
-- Column centre_latitude [deg]: Middle of that box.
-- Column centre_longitude [deg]: Middle of that box.
SELECT
    area, count(*) AS post_count,
    list_sort(list(DISTINCT district_code) FILTER (district_code IS NOT NULL)) AS districts,
    min(longitude) AS west, min(latitude) AS south, max(longitude) AS east, max(latitude) AS north,
    (south + north) / 2 AS centre_latitude, (west + east) / 2 AS centre_longitude
FROM city.lamppost_entries
WHERE kind = 'lamppost' AND valid_from <= now() AND (valid_to IS NULL OR now() < valid_to)
GROUP BY area
