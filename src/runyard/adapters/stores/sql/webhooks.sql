-- name: newest
select coalesce(max(number), 0) as number from webhooks

-- name: pending
select id, url, next_at from webhooks where state = 'PENDING' order by number

-- name: sizes
select endpoint_id, count(*) as count, sum(size) as bytes from webhooks group by endpoint_id

-- name: owe
insert or ignore into webhooks
    (number, id, endpoint_id, job_id, url, created_at, size, state, next_at, finished_at, round_tries, tries)
values
    (:number, :id, :endpoint_id, :job_id, :url, :created_at, :size, :state, :next_at, :finished_at, :round_tries, :tries)

-- name: keep_body
insert or ignore into webhook_bodies (number, body) values (:number, :body)

-- name: take_back
delete from webhooks where number = :number

-- name: take_back_body
delete from webhook_bodies where number = :number

-- name: save
update webhooks
set state = :state, next_at = :next_at, finished_at = :finished_at, round_tries = :round_tries, tries = :tries
where id = :id

-- name: get
select * from webhooks where id = :id

-- name: body
select body from webhook_bodies where number = (select number from webhooks where id = :id)

-- name: list
select * from webhooks
where endpoint_id = :endpoint_id
    and number < :after
    and (:state is null or state = :state)
order by number desc
limit :limit

-- name: list_of_job
select * from webhooks
where job_id = :job_id
    and endpoint_id = :endpoint_id
    and number < :after
    and (:state is null or state = :state)
order by number desc
limit :limit

-- name: finished_before
select * from webhooks where finished_at < :before order by finished_at limit :limit

-- name: waiting
select count(*) as count from webhooks where endpoint_id = :endpoint_id and state = 'PENDING'

-- name: oldest_finished_of
select * from webhooks
where endpoint_id = :endpoint_id and finished_at is not null
order by finished_at
limit :limit

-- name: oldest_waiting_of
select * from webhooks where endpoint_id = :endpoint_id and state = 'PENDING' order by number limit :limit

-- name: oldest_finished
select * from webhooks where finished_at is not null order by finished_at limit :limit

-- name: oldest_waiting
select * from webhooks where state = 'PENDING' order by number limit :limit

-- name: forget
delete from webhooks where number in (select value from json_each(:numbers))

-- name: forget_bodies
delete from webhook_bodies where number in (select value from json_each(:numbers))

-- name: secrets
select secrets from webhook_secrets where endpoint_id = :endpoint_id

-- name: keep_secrets
insert into webhook_secrets (endpoint_id, secrets) values (:endpoint_id, :secrets)
on conflict (endpoint_id) do update set secrets = excluded.secrets
