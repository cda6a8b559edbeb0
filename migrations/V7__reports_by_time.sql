-- Reports are listed, newest first; and say what kind of file they are: reports from before are CSVs of the usual columns.
ALTER TABLE public.reports
    ADD COLUMN format  text NOT NULL DEFAULT 'csv',
    ADD COLUMN columns text NOT NULL DEFAULT 'default',
    ADD CONSTRAINT format_is_known CHECK (format IN ('csv', 'json', 'parquet')),
    ADD CONSTRAINT columns_is_known CHECK (columns IN ('default', 'extended'));
CREATE INDEX reports_by_time ON public.reports (requested_at, report_id);
