-- Air Quality Health Index by Hong Kong's formula, from means of three hours: the index that the view windows.aqhi has
-- for the same means. A missing pollutant makes no index.
-- Parameter no2_ug_m3 [ug/m3]: Mean of nitrogen dioxide over the three hours, of at least 75 % of its values.
-- Parameter o3_ug_m3 [ug/m3]: Mean of ozone.
-- Parameter so2_ug_m3 [ug/m3]: Mean of sulphur dioxide.
-- Parameter pm10_ug_m3 [ug/m3]: Mean of PM10.
-- Parameter pm2_5_ug_m3 [ug/m3]: Mean of PM2.5.
-- Parameter window_end [UTC]: End of the three hours; it says which betas and bands apply.
-- Gives: 1 to 10 or 10+ as text; null when a mean or the end is null, or before the index began (2013-12-30)
CASE WHEN no2_ug_m3 + o3_ug_m3 + so2_ug_m3 + pm10_ug_m3 + pm2_5_ug_m3 IS NOT NULL THEN $aqhi_band END
