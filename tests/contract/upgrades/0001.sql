BEGIN TRANSACTION;
CREATE TABLE endpoint_numbers (
    number integer primary key autoincrement,
    endpoint_id text not null unique
) strict;
INSERT INTO "endpoint_numbers" VALUES(1,'endpoint-0');
INSERT INTO "endpoint_numbers" VALUES(2,'endpoint-1');
INSERT INTO "endpoint_numbers" VALUES(3,'endpoint-2');
CREATE TABLE endpoints (
    id text primary key,
    name text not null unique,
    kind text not null,
    workers_min integer not null,
    workers_max integer not null,
    idle_timeout_s real not null,
    scaler text not null check (scaler in ('QUEUE_DELAY', 'REQUEST_COUNT')),
    scaler_value real not null,
    execution_timeout_s real not null,
    release_id text not null,
    generation integer not null,
    created_at real not null
) strict;
INSERT INTO "endpoints" VALUES('endpoint-1','named endpoint-1','QUEUE',1,4,5.0,'QUEUE_DELAY',2.5,77.0,'release-endpoint-1-2',3,1800000000.0);
INSERT INTO "endpoints" VALUES('endpoint-2','named endpoint-2','QUEUE',0,3,5.0,'REQUEST_COUNT',3.0,600.0,'release-endpoint-2-1',1,1800000005.0);
CREATE TABLE keys (
    id text primary key,
    name text not null,
    digest blob not null unique,
    created_at real not null,
    revoked_at real
) strict;
INSERT INTO "keys" VALUES('key-1','admin',X'7692C3AD3540BB803C020B3AEE66CD8887123234EA0C6E7143C0ADD73FF431ED',1800000000.0,NULL);
INSERT INTO "keys" VALUES('key-2','old',X'3FC4CCFE745870E2C0D99F71F30FF0656C8DEDD41CC1D7D3D376B0DBE685E2F3',1800000001.0,1800000002.0);
CREATE TABLE releases (
    id text primary key,
    endpoint_id text not null references endpoints (id) on delete cascade,
    version integer not null,
    bundle text not null,
    handler text not null,
    env text not null, -- JSON: [[name, value], ...]
    lock text,
    created_at real not null,
    unique (endpoint_id, version)
) strict;
INSERT INTO "releases" VALUES('release-endpoint-1-1','endpoint-1',1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','handler.py','[]','',1800000000.0);
INSERT INTO "releases" VALUES('release-endpoint-2-1','endpoint-2',1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','handler.py','[]','',1800000000.0);
INSERT INTO "releases" VALUES('release-endpoint-1-2','endpoint-1',2,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','handler.py','[["NAME", "v\u00e5lue"]]','httpx==1.0
',1800000000.0);
CREATE TABLE schema_version (number integer primary key, name text not null, applied_at text not null default current_timestamp) strict;
INSERT INTO "schema_version" VALUES(1,'0001_control','2026-11-24 19:01:18');
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('endpoint_numbers',3);
COMMIT;
