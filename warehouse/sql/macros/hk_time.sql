-- The time in Hong Kong, without a zone: hk_time(event_time)::DATE is the day of the calendar.
-- Parameter t [UTC]: A moment; one without a zone is taken to be in the session's.
-- Gives: The local time (TIMESTAMP).
timezone('Asia/Hong_Kong', t::TIMESTAMPTZ)
