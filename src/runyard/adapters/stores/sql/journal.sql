-- name: load
select number, format, records from journal order by number

-- name: append
insert into journal (number, format, records) values (?, ?, ?)

-- name: up_to
select records from journal where number <= :last order by number

-- name: delete_up_to
delete from journal where number <= :last

-- name: delete_after
delete from journal where number > :last
