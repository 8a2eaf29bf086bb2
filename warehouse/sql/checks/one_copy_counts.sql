-- Of the copies of a message the one with the least digest is the reading; all others are marked as conflicting, and
-- no view shows them.
-- Grain: one message
-- Key: table_name, the message's own
SELECT '$reading' AS table_name, $message,
    min(digest) AS least_digest,
    min(digest) FILTER (NOT is_conflicting) AS least_shown,
    max(digest) FILTER (NOT is_conflicting) AS greatest_shown
FROM lake.$reading
WHERE $time >= $since
GROUP BY ALL
HAVING (least_digest, least_digest) IS DISTINCT FROM (least_shown, greatest_shown)
