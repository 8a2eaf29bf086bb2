-- How much of what all posts' sensors promise by the registry has landed, hour by hour, over the whole city.
-- Grain: one quantity and hour
-- Key: quantity, window_start
-- Reads: completeness
-- Column window_start [UTC]: Start of the hour.
-- Column window_start_hk [UTC+8]: The same moment as clocks in Hong Kong tell it.
-- Column stream: Stream that carries the quantity.
-- Column quantity: Name in the table of quantities; of traffic half-minutes are counted, under vehicle_count.
-- Column post_count [1]: Posts that promise the quantity.
-- Column heard_count [1]: Posts of which any value landed.
-- Column expected_count [1]: Values that the cadence promises.
-- Column landed_count [1]: Values that landed, used or not.
-- Column used_count [1]: Values used: flags 1 and 2.
-- Column completeness [1]: used_count / expected_count, of no post more than it promises.
SELECT
    window_start, window_start_hk, stream, quantity,
    count(*) AS post_count,
    count(*) FILTER (landed_count > 0) AS heard_count,
    sum(expected_count)::BIGINT AS expected_count,
    sum(landed_count)::BIGINT AS landed_count,
    sum(used_count)::BIGINT AS used_count,
    (sum(least(used_count, expected_count)) / sum(expected_count))::DOUBLE AS completeness
FROM completeness
GROUP BY ALL
