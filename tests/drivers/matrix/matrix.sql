-- What the drivers of the matrix write to. A row that is written twice is there twice: only id is unique.
-- An enum, whose oid differs between the sides (a thousand were used up before it): drivers look types up by their
-- oids, and keep what they found.
do $$
begin
    for i in 1..500 loop
        create type wasted as enum ();
        drop type wasted;
    end loop;
end $$;
create type matrix_mood as enum ('calm', 'hectic');

create table matrix_entry (
    id bigserial primary key,
    driver text not null,
    worker text not null,
    n bigint not null,
    mood matrix_mood not null default 'calm',
    tenant text not null default current_setting('app.tenant')
);
create index on matrix_entry (driver, worker, n);
