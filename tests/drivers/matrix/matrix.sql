-- What the drivers of the matrix write to. A row that is written twice is there twice: only id is unique.
create table matrix_entry (
    id bigserial primary key,
    driver text not null,
    worker text not null,
    n bigint not null,
    tenant text not null default current_setting('app.tenant')
);
create index on matrix_entry (driver, worker, n);
