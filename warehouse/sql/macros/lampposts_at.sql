-- The registry as it was at a moment. To give each reading the entry of its own time, join lamppost_entries ON
-- event_time >= valid_from AND (valid_to IS NULL OR event_time < valid_to).
-- Parameter t [UTC]: A moment.
-- Grain: one post
-- Key: post_id
-- Column post_id: Lamppost or detector; the other columns are those of lamppost_entries.
SELECT *
FROM city.lamppost_entries
WHERE valid_from <= t AND (valid_to IS NULL OR t < valid_to)
