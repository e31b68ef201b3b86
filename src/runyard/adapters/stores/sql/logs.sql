-- name: add
insert into lines (ms, seq, endpoint_id, worker_id, job_id, source, line)
values (:ms, :seq, :endpoint_id, :worker_id, :job_id, :source, :line)

-- name: count
insert into kept (endpoint_id, bytes) values (:endpoint_id, :bytes)
on conflict (endpoint_id) do update set bytes = bytes + :bytes

-- name: after_of_endpoint
select * from lines
where endpoint_id = :endpoint_id and (ms, seq) > (:ms, :seq) and (ms, seq) <= (:upto_ms, :upto_seq)
  and (:source is null or source = :source)
order by ms, seq limit :limit

-- name: after_of_worker
select * from lines
where worker_id = :worker_id and (ms, seq) > (:ms, :seq) and (ms, seq) <= (:upto_ms, :upto_seq)
  and +endpoint_id = :endpoint_id and (:job_id is null or +job_id = :job_id) and (:source is null or source = :source)
order by ms, seq limit :limit

-- name: after_of_job
select * from lines
where job_id = :job_id and (ms, seq) > (:ms, :seq) and (ms, seq) <= (:upto_ms, :upto_seq)
  and +endpoint_id = :endpoint_id and (:source is null or source = :source)
order by ms, seq limit :limit

-- name: last_of_endpoint
select * from lines
where endpoint_id = :endpoint_id and (ms, seq) <= (:upto_ms, :upto_seq)
  and (:source is null or source = :source)
order by ms desc, seq desc limit :limit

-- name: last_of_worker
select * from lines
where worker_id = :worker_id and (ms, seq) <= (:upto_ms, :upto_seq)
  and +endpoint_id = :endpoint_id and (:job_id is null or +job_id = :job_id) and (:source is null or source = :source)
order by ms desc, seq desc limit :limit

-- name: last_of_job
select * from lines
where job_id = :job_id and (ms, seq) <= (:upto_ms, :upto_seq)
  and +endpoint_id = :endpoint_id and (:source is null or source = :source)
order by ms desc, seq desc limit :limit

-- name: newest
select ms, seq from lines order by id desc limit 1

-- name: kept
select endpoint_id, bytes from kept order by bytes desc

-- name: oldest
select id, ms, endpoint_id, length(cast(line as blob)) as length from lines order by id limit :limit

-- name: oldest_of_endpoint
select id, ms, endpoint_id, length(cast(line as blob)) as length from lines
where endpoint_id = :endpoint_id order by ms, seq limit :limit

-- name: forget
delete from lines where id = :id

-- name: uncount
delete from kept where bytes <= 0
