-- The third part of the schema `switchback`: the promise that what is acknowledged on the active side is on the other
-- one too, and what follows when the active side is dead.

-- --- the promise ---

-- The stream that comes in here confirms what it has flushed, at once: with synchronous_commit `off` a commit on the
-- other side would wait for our WAL writer, with `on` it would wait for names that were left behind here.
create or replace function switchback.confirm_at_once(claimed_owner bigint) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
    stream text := 'switchback_from_' || case s.side when 'blue' then 'green' else 'blue' end;
begin
    perform from pg_subscription where subname = stream and subsynccommit <> 'local'
        and subdbid = (select oid from pg_database where datname = current_database());
    if found then
        -- A worker that starts again confirms what the one before it had not flushed.
        if exists (select from pg_stat_subscription where subname = stream and pid is not null) then
            raise exception using errcode = 'SB003', message = format('subscription %s does not flush what it applies', stream),
                hint = 'run: switchback prepare';
        end if;
        execute format('alter subscription %I set (synchronous_commit = local)', stream);
    end if;
end $$;

-- Is that backend seen waiting for the other side within that time? At first without a pause, since the wait may last for a
-- millisecond only; later with one, since what it waits for needs the processor, too.
create or replace function switchback.sees_waiting(backend integer, patience interval) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    began timestamptz := clock_timestamp();
begin
    loop
        perform pg_stat_clear_snapshot();
        if exists (select from pg_stat_get_activity(backend) where wait_event = 'SyncRep') then
            return true;
        end if;
        exit when clock_timestamp() > began + patience;
        if clock_timestamp() > began + interval '2 milliseconds' then
            perform pg_sleep(0.001);
        end if;
    end loop;
    return false;
end $$;

-- The slot's walsender as the names see it, and how many backends of the cluster wait for the other side now.
create or replace function switchback.sync_out(slot text, out synchronous boolean, out waiting bigint, out names text)
language sql stable set search_path = pg_catalog, pg_temp as $$
    select coalesce((select r.sync_state = 'sync' from pg_replication_slots k join pg_stat_replication r on r.pid = k.active_pid
                     where k.slot_name = slot), false),
           (select count(*) from pg_stat_activity where wait_event = 'SyncRep'),
           current_setting('synchronous_standby_names')
$$;

-- --- sequences of a side that may die ---

-- The marker `sample`: [[name, last value, is_called, growth], ...]. Growth is the most that it grew between two samples
-- lately. Written anew only when a value moved.
create or replace function switchback.sample_sequences() returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state;
    earlier jsonb;
    later jsonb;
begin
    select * into s from switchback.state;
    if s.standing <> 'active' or s.fenced_for is not null then
        return;
    end if;
    select detail::jsonb into earlier from switchback.marker where side = s.side and purpose = 'sample';
    with seen as materialized (
        select v ->> 0 as name, (v ->> 1)::numeric as value, v -> 2 as called from jsonb_array_elements(switchback.sequences()) v),
    before as materialized (
        select v ->> 0 as name, (v ->> 1)::numeric as value, v -> 2 as called, (v ->> 3)::numeric as growth
        from jsonb_array_elements(coalesce(earlier, '[]')) v)
    select jsonb_agg(jsonb_build_array(seen.name, seen.value, seen.called,
                                       trunc(coalesce(greatest(abs(seen.value - before.value), before.growth * 3 / 4), 0))))
               filter (where true)
    into later
    from seen left join before using (name)
    having bool_or(before.value is distinct from seen.value or before.called is distinct from seen.called);
    if later is null then
        return;
    end if;
    insert into switchback.marker as m (side, purpose, n, at, detail) values (s.side, 'sample', 1, clock_timestamp(), later::text)
    on conflict (side, purpose) do update set n = m.n + 1, at = excluded.at, detail = excluded.detail;
end $$;

-- The highest value (for a falling sequence the lowest) in the column that owns it, where an index tells at once; else NULL.
create or replace function switchback.owned_extreme(sequence oid, falling boolean) returns numeric language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    owner_table regclass;
    owner_column name;
    value numeric;
begin
    select d.refobjid, a.attname into owner_table, owner_column
    from pg_depend d join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where d.classid = 'pg_class'::regclass and d.objid = sequence and d.refclassid = 'pg_class'::regclass
      and d.deptype in ('a', 'i') and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
      and exists (select from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam
                  where i.indrelid = d.refobjid and i.indisvalid and i.indpred is null and i.indkey[0] = a.attnum
                    and m.amname = 'btree');
    if not found then
        return null;
    end if;
    execute format('select %s(%I) from %s', case when falling then 'min' else 'max' end, owner_column, owner_table) into value;
    return value;
end $$;

-- Sequences of a side that opens without the other's last word: beyond all that the other can have given out. From the
-- last sample and our own value, whichever is further, and a margin: ten intervals' growth, at least 1,000 numbers. A
-- sequence with less room than that goes to the furthest value known.
create or replace function switchback.set_sequences_alone(peer text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    sampled jsonb := coalesce((select detail::jsonb from switchback.marker where side = peer and purpose = 'sample'), '[]');
    q record;
    falling boolean;
    known numeric;
    wanted numeric;
begin
    for q in
        with sample as materialized (
            select v ->> 0 as name, (v ->> 1)::numeric as value, (v ->> 3)::numeric as growth from jsonb_array_elements(sampled) v)
        select m.oid, m.name, p.seqincrement, p.seqmin, p.seqmax, p.seqstart, pg_sequence_last_value(m.oid) as own,
               sample.value, coalesce(sample.growth, 0) as growth
        from switchback.managed_sequence m join pg_sequence p on p.seqrelid = m.oid left join sample using (name)
    loop
        falling := q.seqincrement < 0;
        known := coalesce(q.own, q.seqstart);
        known := case when falling then least(known, q.value, switchback.owned_extreme(q.oid, true))
                      else greatest(known, q.value, switchback.owned_extreme(q.oid, false)) end;
        known := least(greatest(known, q.seqmin), q.seqmax);
        wanted := known + sign(q.seqincrement) * greatest(10 * q.growth, 1000 * abs(q.seqincrement::numeric));
        if wanted < q.seqmin or wanted > q.seqmax then
            wanted := known;
        end if;
        perform setval(q.oid, wanted::bigint, true);
    end loop;
end $$;

-- --- the active side is dead ---

-- The standby that takes over hears no more of the other side, which may live on: nothing that it commits from now on
-- is confirmed here.
create or replace function switchback.cut_off(claimed_owner bigint, claimed_epoch bigint, flip bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
begin
    if s.standing = 'active' and s.epoch = claimed_epoch + 1 and s.opened_for = flip then
        return;
    end if;
    if s.standing <> 'standby' or s.epoch > claimed_epoch or s.aborted >= flip then
        perform switchback.stale(s, format('can''t take over by flip %s at epoch %s', flip, claimed_epoch));
    end if;
    execute format('alter subscription %I disable', 'switchback_from_' || case s.side when 'blue' then 'green' else 'blue' end);
end $$;

-- The undo: it follows again, and nothing of that flip passes any more.
create or replace function switchback.reattach(claimed_owner bigint, claimed_epoch bigint, flip bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
begin
    if s.standing <> 'standby' or s.epoch > claimed_epoch then
        perform switchback.stale(s, format('can''t follow again after flip %s', flip));
    end if;
    update switchback.state set aborted = greatest(s.aborted, flip);
    execute format('alter subscription %I enable', 'switchback_from_' || case s.side when 'blue' then 'green' else 'blue' end);
end $$;

-- Makes the standby ready without the closing marker of a side that can't write it. Its caller leaves the transaction
-- open: COMMIT opens this side. Returns where it begins; NULL if this flip has opened it already. The way back's slot may
-- be gone: serving comes first, and what follows from it is said where the other side comes back.
create or replace function switchback.make_ready_alone(claimed_owner bigint, claimed_epoch bigint, flip bigint)
returns pg_catalog.pg_lsn language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
    peer text := case s.side when 'blue' then 'green' else 'blue' end;
    stream record;
    start pg_lsn;
begin
    if s.standing = 'active' and s.epoch = claimed_epoch + 1 and s.opened_for = flip then
        return null;
    end if;
    if s.standing <> 'standby' or s.epoch > claimed_epoch or s.aborted >= flip then
        perform switchback.stale(s, format('can''t be opened alone for flip %s at epoch %s', flip, claimed_epoch));
    end if;
    select oid, subenabled into stream from pg_subscription
    where subname = 'switchback_from_' || peer
      and subdbid = (select oid from pg_database where datname = current_database());
    if stream.subenabled then
        raise exception using errcode = 'SB005', message = format('the stream from %s is not cut off', peer);
    end if;
    -- One that was being started while the subscription was disabled appears after the others have ended.
    loop
        perform pg_terminate_backend(pid) from pg_stat_subscription where subid = stream.oid and pid is not null;
        exit when not found;
        perform pg_sleep(0.002);
    end loop;
    perform switchback.set_sequences_alone(peer);
    perform switchback.set_fences(false);
    start := pg_current_wal_insert_lsn();
    update switchback.state set standing = 'active', epoch = claimed_epoch + 1, fenced_for = null, opened_for = flip,
        start_lsn = start;
    perform switchback.renew_markers(s.side);
    return start;
end $$;

-- An operator's word: this side is the active one, at that epoch, whatever its row says of a flip. What it hears from the
-- other side ends with it.
create or replace function switchback.adopt(claimed_owner bigint, wanted_epoch bigint) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
    peer text := case s.side when 'blue' then 'green' else 'blue' end;
begin
    if s.epoch > wanted_epoch then
        perform switchback.stale(s, format('is at epoch %s already, not below %s', s.epoch, wanted_epoch));
    end if;
    if exists (select from pg_subscription where subname = 'switchback_from_' || peer and subenabled
               and subdbid = (select oid from pg_database where datname = current_database())) then
        execute format('alter subscription %I disable', 'switchback_from_' || peer);
    end if;
    if s.standing <> 'active' then
        perform switchback.set_sequences_alone(peer);
    end if;
    perform switchback.set_fences(false);
    update switchback.state set standing = 'active', epoch = wanted_epoch, fenced_for = null,
        aborted = greatest(s.aborted, s.fenced_for),
        start_lsn = case when s.standing <> 'standby' and s.start_lsn is not null then s.start_lsn
                         else pg_current_wal_insert_lsn() end;
    perform switchback.renew_markers(s.side);
end $$;

-- --- a diverged side comes back ---

-- "t.a = k.key[1]::integer and ...": which rows of that table a key means.
create or replace function switchback.key_condition(of_table text, columns text[]) returns text language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare
    condition text;
begin
    select string_agg(format('t.%I = k.key[%s]::%s', a.attname, c.place, format_type(a.atttypid, -1)), ' and ' order by c.place)
    into condition
    from unnest(columns) with ordinality c(name, place)
    join pg_attribute a on a.attrelid = to_regclass(of_table) and a.attname = c.name and not a.attisdropped
    having count(*) = cardinality(columns);
    if condition is null then
        raise exception using errcode = 'SB003', message = format('table %s has not the key %s here', of_table, columns);
    end if;
    return condition;
end $$;

-- The rows that stranded transactions touched (rejoining) go, so that what the active side did since meets nothing of them,
-- and its stream begins. Returns how many keys there are.
create or replace function switchback.begin_rejoin(claimed_owner bigint, pair_epoch bigint, start pg_catalog.pg_lsn)
returns bigint language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
    touched record;
begin
    if s.standing <> 'diverged' or s.epoch >= pair_epoch then
        perform switchback.stale(s, 'can''t rejoin');
    end if;
    delete from switchback.rejoining a using switchback.rejoining b
    where a.name = b.name and a.columns = b.columns and a.key = b.key and a.id > b.id;
    for touched in select distinct name, columns from switchback.rejoining loop
        execute format('delete from only %s t using switchback.rejoining k where k.name = %L and k.columns = %L and %s',
                       touched.name, touched.name, touched.columns, switchback.key_condition(touched.name, touched.columns));
    end loop;
    perform switchback.follow_from(start);
    return (select count(*) from switchback.rejoining);
end $$;

create or replace function switchback.end_rejoin(claimed_owner bigint, pair_epoch bigint) returns void language plpgsql as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
begin
    if s.standing <> 'diverged' or s.epoch >= pair_epoch or exists (select from switchback.rejoining) then
        perform switchback.stale(s, 'can''t end the rejoining');
    end if;
    update switchback.state set standing = 'standby', epoch = pair_epoch, fenced_for = null;
end $$;
