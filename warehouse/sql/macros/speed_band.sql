-- Level of service by the Transport Department's colours, as the view windows.traffic has it: congested (red) below 15
-- km/h, slow below 30, smooth (green) from there on; on roads with a limit of 70 km/h or more below 25 and 50.
-- Parameter speed_kmh [km/h]: Speed, best the space-mean speed.
-- Parameter speed_limit_kmh [km/h]: Limit of the road.
-- Gives: congested, slow or smooth; null without a speed of 0 or more and a limit above 0
CASE
    WHEN speed_limit_kmh >= $strategic_limit_kmh THEN $strategic_step
    WHEN speed_limit_kmh > 0 THEN $urban_step
END
