-- Spans of five-minute windows in which fewer values of a post's quantity landed than its cadence promises, neighbouring
-- windows joined; values that are flagged did land. Windows count when the registry says that the post measures the
-- quantity, from the first window in the lake to the moment that the catalogue covers.
-- Parameter post: Lamppost.
-- Parameter quantity: Name in the table of quantities.
-- Grain: one span
-- Key: gap_start
-- Column gap_start [UTC]: Start of the first window.
-- Column gap_end [UTC]: End of the last.
-- Column expected_count [1]: Values promised for the span.
-- Column found_count [1]: Values that landed, used or flagged; 0: nothing did.
WITH spans AS (
    SELECT
        -- whole windows only
        time_bucket(
            INTERVAL 5 MINUTE,
            greatest(entries.valid_from, (SELECT min(window_start) FROM lake.windows)) + INTERVAL 299.999999 SECOND
        ) AS span_start,
        least(coalesce(entries.valid_to, data_through), data_through) AS span_end
    FROM city.lamppost_entries AS entries
    JOIN city.sensors AS sensors USING (post_id, valid_from)
    CROSS JOIN main.state
    WHERE entries.post_id = post AND list_contains(sensors.quantities, quantity)
        AND EXISTS (FROM lake.windows)
),
promised AS (
    SELECT DISTINCT unnest(
        generate_series(span_start, span_end - INTERVAL 5 MINUTE, INTERVAL 5 MINUTE)
    ) AS window_start
    FROM spans
),
found AS (
    SELECT windows.window_start, windows.value_count + windows.flagged_count AS found_count
    FROM lake.windows AS windows
    WHERE windows.post_id = post AND windows.quantity = quantity
),
short AS (
    SELECT
        window_start, coalesce(found_count, 0) AS found_count, 300 // cadence_s AS expected_count,
        window_start - row_number() OVER (ORDER BY window_start) * INTERVAL 5 MINUTE AS run
    FROM promised
    LEFT JOIN found USING (window_start)
    JOIN main.quantities AS quantities ON quantities.quantity = quantity
    WHERE coalesce(found_count, 0) < 300 // cadence_s
)
SELECT
    min(window_start) AS gap_start, max(window_start) + INTERVAL 5 MINUTE AS gap_end,
    sum(expected_count)::BIGINT AS expected_count, sum(found_count)::BIGINT AS found_count
FROM short
GROUP BY run
ORDER BY gap_start
