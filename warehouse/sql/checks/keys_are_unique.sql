-- A key tells the rows of a table apart; of readings, copies with other bytes have another digest.
-- Grain: one key that several rows have
-- Key: table_name, the table's own
WITH repeated AS (
    -- 8 bytes a row instead of all columns of the key
    SELECT hash($key) AS key_hash FROM lake.$table WHERE $time >= $since GROUP BY ALL HAVING count(*) > 1
)
SELECT '$table' AS table_name, $key, count(*) AS row_count
FROM lake.$table
WHERE $time >= $since AND hash($key) IN (SELECT key_hash FROM repeated)
GROUP BY ALL
HAVING count(*) > 1
