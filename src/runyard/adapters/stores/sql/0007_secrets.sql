-- Secrets and credentials of registries. What is `sealed` opens with the keys in secrets.key, beside the database, alone.

create table secrets (
    name text primary key,
    sealed blob not null,
    created_at real not null,
    updated_at real not null
) strict;

-- Values that were replaced or deleted while workers had them: what those workers say is redacted still.
create table former_secrets (
    id integer primary key,
    name text not null,
    sealed blob not null,
    replaced_at real not null
) strict;

create table registries (
    id text primary key,
    name text not null unique,
    server text, -- null: any
    sealed blob not null, -- JSON: [user, password]
    created_at real not null
) strict;
