-- Windows of 5, 15 and 60 minutes. Reads a day more than asked for, for what looks back.
-- Grain: one post, quantity, period and window
-- Key: post_id, quantity, period_s, window_start
-- Reads: all_values
SELECT * EXCLUDE (zone)
FROM all_values
WHERE period_s <= 3600
