-- Endpoints with their releases, and keys.

create table endpoints (
    id text primary key,
    name text not null unique,
    kind text not null,
    workers_min integer not null,
    workers_max integer not null,
    idle_timeout_s real not null,
    scaler text not null check (scaler in ('QUEUE_DELAY', 'REQUEST_COUNT')),
    scaler_value real not null,
    execution_timeout_s real not null,
    release_id text not null,
    generation integer not null,
    created_at real not null
) strict;

create table releases (
    id text primary key,
    endpoint_id text not null references endpoints (id) on delete cascade,
    version integer not null,
    bundle text not null,
    handler text not null,
    env text not null, -- JSON: [[name, value], ...]
    lock text,
    created_at real not null,
    unique (endpoint_id, version)
) strict;

-- Outlives its endpoint, and AUTOINCREMENT never gives a number twice: files that a removed endpoint's workers left
-- behind must not belong to the workers of another one.
create table endpoint_numbers (
    number integer primary key autoincrement,
    endpoint_id text not null unique
) strict;

create table keys (
    id text primary key,
    name text not null,
    digest blob not null unique,
    created_at real not null,
    revoked_at real
) strict;
