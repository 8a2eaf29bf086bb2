-- What landed until $fresh_s seconds ago is in the catalogue. Asked with --fresh only.
-- Grain: the lake
-- Key: none
SELECT data_through, round(epoch(now() - data_through), 1) AS age_s
FROM main.state
WHERE data_through IS NULL OR now() - data_through > to_seconds($fresh_s)
