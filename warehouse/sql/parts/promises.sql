-- What each post's sensors promise by the registry: one row per span in which an entry holds. Of traffic half-minutes
-- are promised, under vehicle_count.
-- Grain: one post, quantity and registry entry
-- Key: post_id, quantity, valid_from
SELECT
    post_id, area, quantities.stream AS stream, quantity, cadence_s, lamppost_entries.valid_from AS valid_from, valid_to,
    string_agg(DISTINCT model, ', ') AS model,
    max(calibrated_on) AS calibrated_on
FROM (SELECT post_id, valid_from, model, calibrated_on, unnest(quantities) AS quantity FROM city.sensors) AS sensors
JOIN city.lamppost_entries USING (post_id, valid_from)
JOIN main.quantities USING (quantity)
WHERE quantities.stream <> 'traffic' OR quantity = 'vehicle_count'
GROUP BY ALL
