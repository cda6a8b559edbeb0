-- Reports that are made by themselves. Of each job, due instant and attempt there is one report, whichever daemon makes it.
ALTER TABLE public.reports
    ADD COLUMN job        text,         -- the job that it was made for; null: somebody asked for it
    ADD COLUMN due_at     timestamptz,  -- the instant at which it was due
    ADD COLUMN attempt    integer,      -- 1, and one more after each failure
    ADD COLUMN removed_at timestamptz,  -- when its file was removed, see jobs.keep_max and jobs.keep_days
    ADD CONSTRAINT job_is_whole CHECK (
        (job IS NULL) = (due_at IS NULL) AND (job IS NULL) = (attempt IS NULL) AND length(job) BETWEEN 1 AND 64
        OR job IS NULL AND due_at IS NULL AND attempt IS NULL
    );

CREATE UNIQUE INDEX reports_job ON public.reports (job, due_at, attempt) WHERE job IS NOT NULL;
