-- What the ends of jobs owe to their webhooks. Bodies stand apart, so that noting a try does not write them again.

create table webhooks (
    number integer primary key, -- in the order in which they were owed
    id text not null unique,
    endpoint_id text not null,
    job_id text not null,
    url text not null,
    created_at real not null,
    size integer not null, -- bytes of the body
    state text not null check (state in ('PENDING', 'DELIVERED', 'FAILED')),
    next_at real not null,
    finished_at real,
    round_tries integer not null,
    tries text not null -- JSON: [{"at", "duration_s", "status", "error", "excerpt", "refused"}, ...]
) strict;

create index webhooks_of_endpoint on webhooks (endpoint_id, number, size);
create index webhooks_of_job on webhooks (job_id);
create index webhooks_pending on webhooks (number) where state = 'PENDING';
create index webhooks_pending_of on webhooks (endpoint_id, number) where state = 'PENDING';
create index webhooks_finished on webhooks (finished_at) where finished_at is not null;
create index webhooks_finished_of on webhooks (endpoint_id, finished_at) where finished_at is not null;

create table webhook_bodies (
    number integer primary key,
    body blob not null
) strict;

create table webhook_secrets (
    endpoint_id text primary key,
    secrets text not null -- JSON: [{"value", "created_at", "expires_at"}, ...], the newest first
) strict;
