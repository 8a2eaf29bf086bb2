-- A flag speaks of a minute that there is and of values that it leaves out, or (consistency) uses.
-- Grain: one post, quantity, minute and test
-- Key: post_id, quantity, window_start, test
SELECT post_id, quantity, window_start, test, flags.flag AS flag, value_count, flagged_count
FROM lake.flags
LEFT JOIN (SELECT * FROM lake.minutes WHERE window_start >= $since) AS minutes USING (post_id, quantity, window_start)
WHERE flags.window_start >= $since AND coalesce(if(test = 'consistency', value_count, flagged_count), 0) = 0
