-- Every post with where it stands and the latest value of each of its quantities: the city at a glance. Posts that are
-- valid now, heard or not, and others that were heard. How old a value is, and its unit, latest says.
-- Grain: one post
-- Key: post_id
-- Columns: lamppost_entries
-- Wide: weather, air, pedestrian
-- Column newest_time [UTC]: Event time of the post's newest value, used or not; null: nothing of it is in the lake.
-- Reads: lampposts
SELECT
    post_id, name_en, area, district, latitude, longitude, max(newest_time) AS newest_time,
    $wide
FROM lampposts
FULL JOIN readings.latest USING (post_id)
GROUP BY post_id, name_en, area, district, latitude, longitude
