-- Values of whole hours, merged from the minutes' state by each quantity's own method.
-- Grain: one post, quantity and hour (UTC)
-- Key: post_id, quantity, window_start
-- Columns: windows
-- Column stream: Stream that carries the quantity.
-- Column value_mean [as quantity]: Mean of the values used, whatever the quantity's method; null when circular.
-- Column value_sd [as quantity]: Their sample standard deviation; null when circular or fewer than two.
-- Column increase [as quantity]: Growth of a counter, from the last value before the hour; resets and rollovers add.
-- Column is_final: Whether the whole window is announced final; a later arrival is possible, and makes a revision.
-- Column data_through [UTC]: What landed until then is in the row.
-- Column revision [1]: Times that the five-minute windows in it changed after they were announced final, in all.
-- Reads: value_windows
SELECT *
FROM value_windows
WHERE period_s = 3600
