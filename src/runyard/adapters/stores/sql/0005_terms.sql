-- What is set for the jobs of one endpoint; null where the platform's setting holds.

alter table endpoints add column retention_s real;
alter table endpoints add column retention_sync_s real;
alter table endpoints add column ttl_s real;
alter table endpoints add column ttl_scope text check (ttl_scope in ('all', 'queue'));
alter table endpoints add column keep_s real;
alter table endpoints add column attempts_max integer;
