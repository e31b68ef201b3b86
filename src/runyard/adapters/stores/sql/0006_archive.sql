-- Jobs that have ended and are out of the way, and what is left of those that are gone.

create table archive (
    number integer primary key, -- in the order in which they came
    endpoint_id text not null,
    job_id text not null,
    place integer not null, -- in the endpoint's list of jobs
    state text not null,
    worker_id text,
    created_at real not null,
    ended_at real not null,
    expires_at real not null,
    fingerprint blob,
    spilled integer not null, -- bytes of its output that lie elsewhere
    record blob not null -- the job in full: a `Written` of `records.py`
) strict;

create unique index archive_of_job on archive (job_id, endpoint_id);
create index archive_by_place on archive (endpoint_id, place);
create index archive_dead on archive (endpoint_id, place) where state in ('FAILED', 'TIMED_OUT');
create index archive_by_expiry on archive (endpoint_id, expires_at);
create index archive_spilled on archive (spilled) where spilled > 0;

create table tombstones (
    number integer primary key,
    endpoint_id text not null,
    job_id text not null,
    state text not null,
    created_at real not null,
    ended_at real,
    gone_at real not null,
    fingerprint blob
) strict;

create unique index tombstones_of_job on tombstones (job_id, endpoint_id);
create index tombstones_gone on tombstones (gone_at);
