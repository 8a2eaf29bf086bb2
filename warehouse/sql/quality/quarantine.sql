-- Messages that broke the contract, as a set: copies of the same bytes on the same topic are one row.
-- The bytes are in payload; payload_text has them where they are UTF-8.
-- Grain: one topic and payload
-- Key: topic, digest
-- Columns: quarantine
-- Column payload_text: The payload as text; null where the bytes are not UTF-8.
-- Column received_time [UTC]: First receipt of these bytes on this topic.
SELECT DISTINCT ON (topic, digest)
    topic, payload, TRY(decode(payload)) AS payload_text, digest, received_time, reason, detail,
    decoder_version, post_id, stream, boot_id, seq, first_seq, event_time
FROM lake.quarantine
ORDER BY topic, digest, received_time
