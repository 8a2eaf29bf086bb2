-- Whether each sensor does its work, as of data_through. The verdict is the first that holds: silent (no value used in
-- the last hour), suspect (of the last day's values a tenth or more flagged, or 30 minutes or more in which the sensor
-- is stuck), uncalibrated (never calibrated, or more than 365 days ago), ok. The last day is the hour that is running
-- and the 23 before it. Of traffic (vehicle_count) lane summaries are counted and completeness is of half-minutes.
-- Grain: one post and quantity that the registry promises at data_through
-- Key: post_id, quantity
-- Reads: promises, traffic_hours
-- Column post_id: Lamppost.
-- Column area: Pilot area.
-- Column stream: Stream that carries the quantity.
-- Column quantity: Name in the table of quantities.
-- Column model: Model of the sensor.
-- Column verdict: silent, suspect, uncalibrated or ok.
-- Column last_value [as quantity]: Last value used; null when there is none, and of traffic.
-- Column last_used_time [UTC]: Its event time; of traffic the newest half-minute of a quarter hour with lanes used.
-- Column age_s [s]: data_through less last_used_time; null when no value was ever used.
-- Column used_count [1]: Values of the last day used: flags 1 and 2.
-- Column flagged_count [1]: Values of the last day left out: flags 3, 4 and 9.
-- Column flagged_share [1]: Share of the last day's values that were left out; null when none landed.
-- Column stuck_minutes [1]: Minutes of the last day in which the value had not moved for an hour (persistence).
-- Column spike_minutes [1]: Minutes of the last day with a spike.
-- Column step_minutes [1]: Minutes of the last day with a step.
-- Column completeness [1]: Share of what the cadence promises for the last day that was used, at most 1.
-- Column calibrated_on: Day of the last calibration.
-- Column days_since_calibration [d]: Days from then to data_through.
WITH span AS (
    -- a lake that began within the day is asked from there on
    SELECT data_through, greatest(
        time_bucket(INTERVAL 1 HOUR, data_through) - INTERVAL 23 HOUR, (SELECT min(window_start) FROM lake.hours)
    ) AS begin_time
    FROM main.state
),
hours AS (
    SELECT post_id, quantity, window_start, value_count AS used_count, flagged_count, value_count AS found_count,
        last_value, CASE WHEN value_count > 0 THEN coalesce(last_used_time, last_event_time) END AS used_time
    FROM lake.hours
    UNION ALL
    SELECT post_id, 'vehicle_count', window_start, used_count, flagged_count, half_minutes, NULL, last_used_time
    FROM traffic_hours
),
newest AS (
    SELECT post_id, quantity, arg_max(last_value, used_time) AS last_value, max(used_time) AS last_used_time
    FROM hours
    GROUP BY ALL
),
recent AS (
    SELECT post_id, quantity, sum(used_count)::BIGINT AS used_count, sum(flagged_count)::BIGINT AS flagged_count,
        sum(found_count)::BIGINT AS found_count
    FROM hours
    JOIN span ON window_start >= begin_time
    GROUP BY ALL
),
spoken AS (
    SELECT post_id, quantity,
        count(*) FILTER (test = 'persistence') AS stuck_minutes,
        count(*) FILTER (test = 'spike') AS spike_minutes,
        count(*) FILTER (test = 'step') AS step_minutes
    FROM lake.flags
    JOIN span ON window_start >= begin_time
    GROUP BY ALL
),
sensors AS (
    SELECT *,
        date_diff('day', calibrated_on, (make_timestamp(epoch_us(data_through)) + INTERVAL 8 HOUR)::DATE) AS days_since_calibration,
        greatest(1, floor(epoch(data_through - greatest(begin_time, valid_from)) / cadence_s)) AS expected_count
    FROM promises
    JOIN span ON valid_from <= data_through AND (valid_to IS NULL OR data_through < valid_to)
),
measured AS (
    SELECT
        post_id, area, stream, quantity, model, last_value, last_used_time,
        epoch(data_through - last_used_time) AS age_s,
        coalesce(used_count, 0) AS used_count,
        coalesce(flagged_count, 0) AS flagged_count,
        (flagged_count / nullif(used_count + flagged_count, 0))::DOUBLE AS flagged_share,
        coalesce(stuck_minutes, 0) AS stuck_minutes,
        coalesce(spike_minutes, 0) AS spike_minutes,
        coalesce(step_minutes, 0) AS step_minutes,
        least(coalesce(found_count, 0) / expected_count, 1.0)::DOUBLE AS completeness,
        calibrated_on, days_since_calibration
    FROM sensors
    LEFT JOIN newest USING (post_id, quantity)
    LEFT JOIN recent USING (post_id, quantity)
    LEFT JOIN spoken USING (post_id, quantity)
)
SELECT
    post_id, area, stream, quantity, model,
    CASE
        WHEN age_s IS NULL OR age_s > 3600 THEN 'silent'
        WHEN flagged_share >= 0.1 OR stuck_minutes >= 30 THEN 'suspect'
        WHEN days_since_calibration IS NULL OR days_since_calibration > 365 THEN 'uncalibrated'
        ELSE 'ok'
    END AS verdict,
    COLUMNS(* EXCLUDE (post_id, area, stream, quantity, model))
FROM measured
