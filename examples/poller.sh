#!/bin/sh
# A poller: asks every store once, and writes what it found into the table that Uptally follows.
#
#   DATABASE_URL=postgres://poller@db.example/uptime examples/poller.sh stores.txt
#
# A line of the file is the id of a store and the URL at which it answers. Let cron or a systemd timer run this once an
# hour. An answer within ten seconds that is no error is "active". Rows go in as one COPY: all of them or none.
set -eu
at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
while read -r store url; do
    if curl -fsSL -m 10 -o /dev/null "$url" 2>/dev/null; then status=active; else status=inactive; fi
    printf '%s\t%s\t%s\n' "$store" "$at" "$status"
done <"$1" |
    psql "$DATABASE_URL" -qX -v ON_ERROR_STOP=1 \
        -c 'COPY public.store_activity (store_id, timestamp_utc, status) FROM STDIN'
