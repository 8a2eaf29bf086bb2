-- Half-minutes of traffic that landed in an hour, and lane summaries used and left out in it.
-- Grain: one post and hour
-- Key: post_id, window_start
SELECT
    post_id, time_bucket(INTERVAL 1 HOUR, window_start) AS window_start,
    sum(half_minutes)::BIGINT AS half_minutes,
    sum(lane_summaries)::BIGINT AS used_count,
    sum(flagged_count)::BIGINT AS flagged_count,
    max(last_event_time) FILTER (lane_summaries > 0) AS last_used_time
FROM (
    -- a message tells of every direction: the half-minutes of one are those of all
    SELECT
        post_id, window_start, max(half_minutes) AS half_minutes, sum(lane_summaries) AS lane_summaries,
        sum(flagged_count) AS flagged_count, max(last_event_time) AS last_event_time
    FROM lake.flow_windows
    WHERE window_start >= time_bucket(INTERVAL 1 HOUR, $since)
    GROUP BY post_id, window_start
)
GROUP BY ALL
