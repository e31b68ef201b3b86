-- name: secrets
select name, sealed, created_at, updated_at from secrets order by name;

-- name: set_secret
insert into secrets (name, sealed, created_at, updated_at) values (:name, :sealed, :now, :now)
on conflict (name) do update set sealed = :sealed, updated_at = :now
returning name, sealed, created_at, updated_at;

-- name: reseal_secret
update secrets set sealed = :sealed where name = :name;

-- name: delete_secret
delete from secrets where name = :name;

-- name: keep_former
insert into former_secrets (name, sealed, replaced_at)
select name, sealed, :now from secrets where name = :name;

-- name: former_secrets
select id, name, sealed, replaced_at from former_secrets order by id;

-- name: reseal_former
update former_secrets set sealed = :sealed where id = :id;

-- name: forget_former
delete from former_secrets where id = :id;

-- name: registries
select id, name, server, sealed, created_at from registries order by created_at, id;

-- name: add_registry
insert into registries (id, name, server, sealed, created_at) values (:id, :name, :server, :sealed, :created_at);

-- name: reseal_registry
update registries set sealed = :sealed where id = :id;

-- name: delete_registry
delete from registries where id = :id;
