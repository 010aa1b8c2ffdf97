-- The tables that tests/drivers/ledger works on: psql -v accounts=1000 -f ledger.sql
create table account (
    id int primary key,
    balance bigint not null,
    note text not null
);
create table entry (
    id bigserial primary key, -- no key over (run, session, n): a doubled row shall be seen, not refused
    run int not null,
    session int not null,
    n bigint not null,
    source int,
    target int,
    amount bigint not null,
    tenant text not null default current_setting('app.tenant'),
    at timestamptz not null default clock_timestamp()
);
create table list (
    id bigint primary key,
    items bigint[] not null
);
create index on entry (run, session, n);
insert into account select g, 1000, repeat('x', 40) from generate_series(1, :accounts) g;
