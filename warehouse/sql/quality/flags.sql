-- What the hour before says of a minute: values outside the limits have the flag. Of the test consistency (flag 1): of
-- two values that contradict each other the hour refuses the other, so one within the limits is good. Context tests only;
-- what a message alone shows is flagged in the table of its readings.
-- Grain: one post, quantity, minute and test
-- Key: post_id, quantity, window_start, test
-- Columns: flags
SELECT window_start, post_id, quantity, test, flag, accepted_low, accepted_high
FROM lake.flags
