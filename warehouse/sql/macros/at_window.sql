-- Start of the window that holds a moment. Windows are counted from midnight in UTC, as those of the views are; days
-- (1440 minutes) begin at midnight in Hong Kong, weeks (10080) on Monday there.
-- Parameter t [UTC]: A moment; one without a zone is taken to be in the session's.
-- Parameter minutes [min]: Length of the windows, above 0.
-- Gives: The start (TIMESTAMPTZ)
time_bucket(
    to_minutes(minutes),
    t::TIMESTAMPTZ,
    CASE
        WHEN minutes % 1440 = 0 THEN TIMESTAMPTZ '2000-01-02 16:00:00Z'
        ELSE TIMESTAMPTZ '2000-01-03 00:00:00Z'
    END
)
