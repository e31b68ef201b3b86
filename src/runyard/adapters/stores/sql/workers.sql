-- name: workers
select * from workers order by created_at, id;

-- name: save_worker
insert into workers (
    id, endpoint_id, secret_digest, phase, created_at, spawned_at, ready_at, sdk_version, unhealthy_reason, stop_reason,
    release_id, release_version, release_created_at, bundle, handler, env, container, lock
) values (
    :id, :endpoint_id, :secret_digest, :phase, :created_at, :spawned_at, :ready_at, :sdk_version, :unhealthy_reason,
    :stop_reason, :release_id, :release_version, :release_created_at, :bundle, :handler, :env, :container, :lock
)
on conflict (id) do update set
    phase = excluded.phase, spawned_at = excluded.spawned_at, ready_at = excluded.ready_at,
    sdk_version = excluded.sdk_version, unhealthy_reason = excluded.unhealthy_reason,
    stop_reason = excluded.stop_reason;

-- name: forget_worker
delete from workers where id = :id;
