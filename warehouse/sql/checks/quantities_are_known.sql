-- Every value is of a quantity that the contract has, and of the stream that carries it.
-- Grain: one quantity and stream of a table
-- Key: table_name, quantity, stream
WITH spoken AS (
    SELECT 'observations' AS table_name, quantity, stream FROM lake.observations WHERE event_time >= $since
    UNION ALL
    SELECT 'minutes', quantity, NULL FROM lake.minutes WHERE window_start >= $since
    UNION ALL
    SELECT 'windows', quantity, NULL FROM lake.windows WHERE window_start >= $since
    UNION ALL
    SELECT 'hours', quantity, NULL FROM lake.hours WHERE window_start >= $since
    UNION ALL
    SELECT 'flags', quantity, NULL FROM lake.flags WHERE window_start >= $since
)
SELECT table_name, quantity, spoken.stream AS stream, count(*) AS row_count
FROM spoken
LEFT JOIN main.quantities USING (quantity)
WHERE quantities.stream IS NULL OR quantities.stream <> spoken.stream
GROUP BY ALL
