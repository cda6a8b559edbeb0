-- For a dashboard: the worst days of each store in its own time zone, from the hourly rows that the daemon keeps.
--
--   psql "$DATABASE_URL" -f examples/worst_days.sql
--
-- The view has a row for each hour in which a store was open, in microseconds. It is at most a second behind
-- (rollup.flush_interval_ms), takes SELECT on the view and on the time zones, and adds up the same as a report.
SELECT hourly.store_id,
       (hour_start AT TIME ZONE COALESCE(zone.timezone_str, 'America/Chicago'))::date AS day,
       ROUND(SUM(up_us) / 3600e6, 2) AS hours_up,
       ROUND(SUM(down_us) / 3600e6, 2) AS hours_down,
       ROUND(100.0 * SUM(up_us) / SUM(up_us + down_us), 2) AS uptime_percent
FROM public.store_uptime_hourly AS hourly
LEFT JOIN public.store_timezones AS zone USING (store_id)
GROUP BY 1, 2
HAVING SUM(down_us) > 0
ORDER BY uptime_percent, store_id, day
LIMIT 20;
