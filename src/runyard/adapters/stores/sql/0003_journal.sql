-- What happened to jobs, batch after batch, each batch one row: an array of MessagePack records (`records.py`).

create table journal (
    number integer primary key,
    format integer not null,
    records blob not null
) strict;
