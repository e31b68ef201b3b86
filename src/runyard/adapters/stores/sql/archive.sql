-- name: keep
insert into archive (
    endpoint_id, job_id, place, state, worker_id, created_at, ended_at, expires_at, fingerprint, spilled, record
) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (job_id, endpoint_id) do update set
    place = excluded.place,
    state = excluded.state,
    worker_id = excluded.worker_id,
    created_at = excluded.created_at,
    ended_at = excluded.ended_at,
    expires_at = excluded.expires_at,
    fingerprint = excluded.fingerprint,
    spilled = excluded.spilled,
    record = excluded.record

-- name: drop
delete from archive where job_id = :job_id and endpoint_id = :endpoint_id

-- name: mark
insert into tombstones (endpoint_id, job_id, state, created_at, ended_at, gone_at, fingerprint)
values (:endpoint_id, :job_id, :state, :created_at, :ended_at, :gone_at, :fingerprint)
on conflict (job_id, endpoint_id) do update set
    state = excluded.state,
    created_at = excluded.created_at,
    ended_at = excluded.ended_at,
    gone_at = excluded.gone_at,
    fingerprint = excluded.fingerprint

-- name: unmark
delete from tombstones where job_id = :job_id and endpoint_id = :endpoint_id

-- name: find
select record, state, created_at, ended_at, 0.0 as gone_at, fingerprint
from archive
where job_id = :job_id and endpoint_id = :endpoint_id
union all
select null, state, created_at, ended_at, gone_at, fingerprint
from tombstones
where job_id = :job_id and endpoint_id = :endpoint_id

-- name: between
select place, record
from archive
where
    endpoint_id = :endpoint_id
    and place >= :bottom
    and place < :top
    and (:states is null or state in (select value from json_each(:states)))
    and (:worker_id is null or worker_id = :worker_id)
order by place desc
limit :limit

-- name: dead_between
select place, record
from archive
where
    endpoint_id = :endpoint_id
    and place >= :bottom
    and place < :top
    and state in ('FAILED', 'TIMED_OUT')
    and (:states is null or state in (select value from json_each(:states)))
    and (:worker_id is null or worker_id = :worker_id)
order by place desc
limit :limit

-- name: endpoints
with recursive known (id) as (
    select min(endpoint_id) from archive
    union all
    select (select min(endpoint_id) from archive where endpoint_id > known.id) from known where known.id is not null
)

select id from known where id is not null

-- name: used_bytes
select
    (select page_count from pragma_page_count()) as pages,
    (select freelist_count from pragma_freelist_count()) as free,
    (select page_size from pragma_page_size()) as page_bytes,
    (select coalesce(sum(spilled), 0) from archive where spilled > 0) as spilled

-- name: expired
select number, endpoint_id, job_id
from archive
where endpoint_id = :endpoint_id and expires_at <= :expired_before
order by expires_at
limit :limit

-- name: oldest
select number, endpoint_id, job_id, length(record) + spilled as size
from archive
where expires_at <= :expired_before
order by number
limit :limit

-- name: all_of
select number from archive where endpoint_id = :endpoint_id limit :limit

-- name: leave_tombstones
insert into tombstones (endpoint_id, job_id, state, created_at, ended_at, gone_at, fingerprint)
select endpoint_id, job_id, state, created_at, ended_at, :now, fingerprint
from archive
where number in (select value from json_each(:numbers)) and expires_at <= :expired_before
on conflict (job_id, endpoint_id) do update set
    state = excluded.state,
    created_at = excluded.created_at,
    ended_at = excluded.ended_at,
    gone_at = excluded.gone_at,
    fingerprint = excluded.fingerprint

-- name: forget
delete from archive where number in (select value from json_each(:numbers)) and expires_at <= :expired_before

-- name: clear
delete from archive where number in (select value from json_each(:numbers))

-- name: gone
select number
from tombstones
where gone_at <= :gone_before and (fingerprint is null or gone_at <= :named_before)
order by gone_at
limit :limit

-- name: bury
delete from tombstones where number in (select value from json_each(:numbers))
