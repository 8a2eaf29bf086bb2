-- Until when windows are announced final, by stream, and how far the data go: a window that ends until final_through is
-- final. One row for every stream, announced or not.
-- Grain: one stream
-- Key: stream
SELECT stream, max(final_through) AS final_through, any_value(data_through) AS data_through
FROM (SELECT stream FROM main.quantities UNION SELECT 'traffic') AS streams
LEFT JOIN lake.announcements USING (stream)
CROSS JOIN main.state
GROUP BY stream
