-- Seqs that a device has reported as dropped and of which nothing landed: its buffer was full, or it gave them up.
-- Grain: one range of seqs, as long as it can be
-- Key: post_id, stream, boot_id, first_seq
-- Reads: unlanded
-- Column post_id: Lamppost.
-- Column stream: Stream.
-- Column boot_id: Boot of the device, 16 hexadecimal digits.
-- Column first_seq [1]: First seq of the range.
-- Column last_seq [1]: Last seq of the range.
-- Column dropped_count [1]: Messages in the range.
-- Column window_start [UTC]: Hour of the next lower seq that landed; else of the boot's birth, else of the next higher.
SELECT post_id, stream, boot_id, first_seq, last_seq, seq_count AS dropped_count, window_start
FROM unlanded
WHERE status = 'dropped' AND window_start >= time_bucket(INTERVAL 1 HOUR, $since)
