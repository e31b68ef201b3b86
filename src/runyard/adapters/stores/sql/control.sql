-- name: endpoints
select
    e.id, e.name, e.kind, e.workers_min, e.workers_max, e.idle_timeout_s, e.scaler, e.scaler_value,
    e.execution_timeout_s, e.retention_s, e.retention_sync_s, e.ttl_s, e.ttl_scope, e.keep_s, e.attempts_max,
    e.generation, e.created_at,
    r.id as release_id, r.endpoint_id, r.version, r.bundle, r.handler, r.env, r.container, r.lock,
    r.created_at as release_created_at
from endpoints as e
join releases as r on r.id = e.release_id
order by e.created_at, e.id;

-- name: add_endpoint
insert into endpoints (
    id, name, kind, workers_min, workers_max, idle_timeout_s, scaler, scaler_value, execution_timeout_s,
    retention_s, retention_sync_s, ttl_s, ttl_scope, keep_s, attempts_max,
    release_id, generation, created_at
) values (
    :id, :name, :kind, :workers_min, :workers_max, :idle_timeout_s, :scaler, :scaler_value, :execution_timeout_s,
    :retention_s, :retention_sync_s, :ttl_s, :ttl_scope, :keep_s, :attempts_max,
    :release_id, :generation, :created_at
);

-- name: save_endpoint
update endpoints
set
    name = :name, kind = :kind, workers_min = :workers_min, workers_max = :workers_max,
    idle_timeout_s = :idle_timeout_s, scaler = :scaler, scaler_value = :scaler_value,
    execution_timeout_s = :execution_timeout_s, retention_s = :retention_s, retention_sync_s = :retention_sync_s,
    ttl_s = :ttl_s, ttl_scope = :ttl_scope, keep_s = :keep_s, attempts_max = :attempts_max,
    release_id = :release_id, generation = :generation
where id = :id and generation = :expected_generation;

-- name: remove_endpoint
delete from endpoints where id = :id;

-- name: add_release
insert into releases (id, endpoint_id, version, bundle, handler, env, container, lock, created_at)
values (:id, :endpoint_id, :version, :bundle, :handler, :env, :container, :lock, :created_at)
on conflict (id) do nothing;

-- name: releases
select
    id as release_id, endpoint_id, version, bundle, handler, env, container, lock, created_at as release_created_at
from releases
where endpoint_id = :endpoint_id
order by version desc;

-- name: set_lock
update releases set lock = :lock where id = :id and lock is null;

-- name: keys
select id, name, digest, created_at, revoked_at from keys order by created_at, id;

-- name: add_key
insert into keys (id, name, digest, created_at, revoked_at)
values (:id, :name, :digest, :created_at, :revoked_at);

-- name: revoke_key
update keys set revoked_at = :now where id = :id and revoked_at is null;

-- name: add_endpoint_number
insert into endpoint_numbers (endpoint_id)
select :endpoint_id where not exists (select 1 from endpoint_numbers where endpoint_id = :endpoint_id);

-- name: endpoint_number
select number - 1 from endpoint_numbers where endpoint_id = :endpoint_id;
