-- Lines in the order in which they came, which is that of (ms, seq) too. bytes: of each endpoint's lines, roughly.
create table lines (
    id integer primary key,
    ms integer not null,
    seq integer not null,
    endpoint_id text not null,
    worker_id text not null,
    job_id text,
    source text not null,
    line text not null
) strict;
create index lines_of_endpoint on lines (endpoint_id, ms, seq);
create index lines_of_worker on lines (worker_id, ms, seq);
create index lines_of_job on lines (job_id, ms, seq) where job_id is not null;
create table kept (endpoint_id text primary key, bytes integer not null) strict, without rowid;
