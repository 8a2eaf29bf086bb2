-- When windows became final, stream by stream.
-- Grain: one announcement
-- Key: stream, final_through
-- Columns: announcements
SELECT stream, final_through, announced_time, reason
FROM lake.announcements
