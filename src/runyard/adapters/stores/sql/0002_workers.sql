-- Workers that are alive, as the platform process that comes next has to know them. What they run is written out in full:
-- a worker may outlive its endpoint, and its releases with it, by the time that it takes to stop.

create table workers (
    id text primary key,
    endpoint_id text not null,
    secret_digest blob not null,
    phase text not null,
    created_at real not null,
    spawned_at real,
    ready_at real,
    sdk_version text,
    unhealthy_reason text,
    stop_reason text,
    release_id text not null,
    release_version integer not null,
    release_created_at real not null,
    bundle text not null,
    handler text not null,
    env text not null, -- JSON: [[name, value], ...]
    lock text
) strict;
