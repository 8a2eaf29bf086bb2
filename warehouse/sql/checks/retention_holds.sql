-- What retention has removed is gone: a table whose every stream it knows has no row from a day before what it has
-- removed by now. (A table that keeps a stream for ever is not asked.)
-- Grain: one table
-- Key: table_name
SELECT table_name, first_time, min(removed_before) AS removed_before
FROM main.snapshot
JOIN quality.removed USING (table_name)
GROUP BY ALL
HAVING first_time < min(removed_before) - INTERVAL 1 DAY
    AND count(removed_before) = CASE
        WHEN table_name = 'observations' THEN 2
        WHEN table_name IN ('minutes', 'windows', 'hours', 'flags') THEN 3
        WHEN table_name = 'duplicates' THEN 6
        ELSE 1
    END
