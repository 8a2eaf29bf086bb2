-- The posts that are valid now, recorded detectors included; the registry's past is in lamppost_entries.
-- Grain: one post
-- Key: post_id
-- Columns: lamppost_entries
SELECT *
FROM city.lamppost_entries
WHERE valid_from <= now() AND (valid_to IS NULL OR now() < valid_to)
