-- The second part of the schema `switchback`: what the phases of a flip call. Each begins with claim(), so that nothing
-- of an earlier controller or of another flip passes.

-- --- the flip, on the source ---

-- The fence's locks: writers in flight are waited for, later ones refused. With the locks held no table can
-- appear or vanish unseen: this side's sets are compared here. Returns its leaves for the comparison with the other's.
create or replace function switchback.raise_fence(claimed_owner bigint, claimed_epoch bigint, flip bigint)
returns text[] language plpgsql as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
    fault text;
begin
    if s.standing <> 'active' or s.epoch <> claimed_epoch or coalesce(s.fenced_for, flip) <> flip
       or s.aborted >= flip then
        perform switchback.stale(s, pg_catalog.format('can''t be fenced for flip %s', flip));
    end if;
    perform switchback.no_prepared_transactions();
    perform switchback.set_fences(true);
    fault := switchback.table_fault();
    if fault is not null then
        raise exception using errcode = 'SB003', message = fault,
            hint = 'run: switchback prepare, or name the table in local_tables';
    end if;
    update switchback.state set fenced_for = flip;
    perform switchback.mark(s, 'flip', flip, null);
    return switchback.leaves();
end $$;

create or replace function switchback.no_prepared_transactions() returns void language plpgsql as $$
declare
    prepared text;
begin
    select gid into prepared from pg_catalog.pg_prepared_xacts
    where database = pg_catalog.current_database() order by pg_catalog.pg_prepared_xacts.prepared limit 1;
    if prepared is not null then
        raise exception using errcode = 'SB005', message = pg_catalog.format('transaction %L is prepared', prepared),
            hint = 'Commit or roll it back: COMMIT PREPARED passes every fence.';
    end if;
end $$;

-- Ends foreign client backends of this database: all but ours (pids) and the manager's. Returns one that is still
-- there, or one of any kind that has a transaction under way; NULL if there is none.
create or replace function switchback.end_foreign(ours integer[]) returns text language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    left_over text;
begin
    perform pg_stat_clear_snapshot();
    select format('backend %s (%s, %s)', pid, coalesce(usename, backend_type), coalesce(nullif(application_name, ''), '?'))
    into left_over
    from (select *, backend_type = 'client backend' and pid <> all (ours)
                    and not (usename = session_user and application_name like 'switchback %') as is_foreign
          from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid()) a
    where case when is_foreign then pg_terminate_backend(pid) is not null
               else backend_xid is not null and backend_type <> 'walsender' and backend_type <> 'autovacuum worker'
                    and backend_type not like 'logical replication%' end
    order by pid limit 1;
    return left_over;
end $$;

-- Ends who stands before the fence of an automatic flip-back: foreign sessions, whatever they are in the midst of, and
-- autovacuum where it holds a managed table (against wraparound it gives way to nobody; it will come again).
create or replace function switchback.clear_the_way(ours integer[]) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
    perform switchback.end_foreign(ours);
    perform case a.backend_type when 'autovacuum worker' then pg_cancel_backend(a.pid) else pg_terminate_backend(a.pid) end
    from pg_stat_activity a
    where a.datname = current_database() and a.backend_type not in ('client backend', 'walsender')
      and a.backend_type not like 'logical replication%'
      and exists (select from pg_locks l join switchback.managed_table m on m.oid = l.relation
                  where l.pid = a.pid and l.granted and l.database = (select oid from pg_database
                                                                      where datname = current_database()));
end $$;

-- After the fence is committed: foreign sessions ended, no transaction under way; then nothing changes any more, and
-- the sequences (nextval passes the fence) can be read. They travel in the closing marker.
create or replace function switchback.seal(claimed_owner bigint, flip bigint, ours integer[], patience interval)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state;
    until timestamptz := clock_timestamp() + patience;
    who text;
begin
    loop
        who := switchback.end_foreign(ours);
        exit when who is null;
        if clock_timestamp() > until then
            raise exception using errcode = 'SB005', message = format('%s did not end its transaction in time', who);
        end if;
        perform pg_sleep(0.001);
    end loop;
    s := switchback.claim(claimed_owner);
    if s.fenced_for is distinct from flip then
        perform switchback.stale(s, format('not fenced for flip %s', flip));
    end if;
    perform switchback.no_prepared_transactions();
    select name into who from switchback.managed_table m
    where not exists (select from pg_trigger t
                      where t.tgrelid = m.oid and t.tgname = '!switchback_fence' and t.tgenabled = 'A')
    limit 1;
    if who is not null then
        raise exception using errcode = 'SB003', message = format('table %s came while the fence went up', who),
            hint = 'run: switchback prepare';
    end if;
    perform switchback.mark(s, 'sequences', flip, switchback.sequences()::text);
end $$;

-- [["public.orders_id_seq", 42, true], ...]: name, last value, is_called. The function that gives the values at once
-- keeps silent about is_called = false: those are read one by one.
create or replace function switchback.sequences() returns jsonb language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    unread text;
    uncalled text[];
    value bigint;
    called boolean;
    called_ones jsonb;
    others jsonb := '[]';
begin
    with s as materialized (select name, oid from switchback.managed_sequence),
    v as materialized (select name, pg_sequence_last_value(oid) as last from s)
    select coalesce(jsonb_agg(jsonb_build_array(name, last, true)) filter (where last is not null), '[]'),
           array_agg(name) filter (where last is null)
    into called_ones, uncalled from v;
    foreach unread in array coalesce(uncalled, '{}') loop
        execute format('select last_value, is_called from %s', unread) into value, called;
        others := others || jsonb_build_array(jsonb_build_array(unread, value, called));
    end loop;
    return called_ones || others;
end $$;

create or replace function switchback.set_sequences(wanted jsonb) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    missing text;
begin
    select w ->> 0 into missing from jsonb_array_elements(wanted) w where to_regclass(w ->> 0) is null limit 1;
    if missing is not null then
        raise exception using errcode = 'SB003', message = format('sequence %s is missing on this side', missing),
            hint = 'run: switchback prepare';
    end if;
    perform setval((w ->> 0)::regclass, (w ->> 1)::bigint, (w ->> 2)::boolean)
    from jsonb_array_elements(wanted) w
    where not (w ->> 2)::boolean or pg_sequence_last_value((w ->> 0)::regclass) is distinct from (w ->> 1)::bigint;
end $$;

-- What a flip will run, run once without effect in the sessions that will run it: plans and caches are warm then.
create or replace function switchback.warm_up() returns void language plpgsql as $$
begin
    perform switchback.leaves();
    perform switchback.table_fault();
    perform switchback.no_prepared_transactions();
    perform switchback.set_sequences('[]');
    perform switchback.sequences();
    perform switchback.set_fences(switchback.is_fenced());
    perform from pg_catalog.pg_stat_activity where backend_xid is not null;
    perform from pg_catalog.pg_replication_slots;
    perform switchback.sees_waiting(0, '0');
end $$;

-- Undo before commit: the source goes on as if nothing had been.
create or replace function switchback.lower_fence(claimed_owner bigint, claimed_epoch bigint, flip bigint)
returns void language plpgsql as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
begin
    if s.standing <> 'active' or s.epoch <> claimed_epoch or coalesce(s.fenced_for, flip) <> flip then
        perform switchback.stale(s, pg_catalog.format('can''t undo flip %s', flip));
    end if;
    perform switchback.set_fences(false);
    update switchback.state set fenced_for = null, aborted = greatest(s.aborted, flip);
end $$;

-- After commit, before released: back to the source, at an epoch above the target's.
create or replace function switchback.reopen(claimed_owner bigint, claimed_epoch bigint, flip bigint)
returns void language plpgsql as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
begin
    if s.standing = 'active' and s.epoch = claimed_epoch + 2 and s.fenced_for is null then
        return;
    end if;
    if s.standing <> 'active' or s.epoch <> claimed_epoch or s.fenced_for is distinct from flip then
        perform switchback.stale(s, pg_catalog.format('can''t reopen after flip %s', flip));
    end if;
    perform switchback.set_fences(false);
    update switchback.state set fenced_for = null, epoch = claimed_epoch + 2, aborted = greatest(s.aborted, flip);
end $$;

-- The turn: this side becomes the standby that receives what the other one did from start on.
create or replace function switchback.follow(claimed_owner bigint, claimed_epoch bigint, flip bigint,
                                             start pg_catalog.pg_lsn)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
begin
    if not (s.standing = 'standby' and s.epoch = claimed_epoch + 1)
       and not (s.standing = 'active' and s.epoch = claimed_epoch and coalesce(s.fenced_for, 0) = flip) then
        perform switchback.stale(s, format('can''t follow after flip %s', flip));
    end if;
    perform switchback.follow_from(start);
    update switchback.state set standing = 'standby', epoch = claimed_epoch + 1, fenced_for = null;
end $$;

-- --- the flip, on the target ---

-- Whoever is opened writes its markers anew. One that it wrote for the first time just before it died has never arrived,
-- and what is only changed later finds no row on the other side: it would be passed over there, without a word, for ever.
create or replace function switchback.renew_markers(me text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    mine switchback.marker[];
begin
    with gone as (delete from switchback.marker m where m.side = me returning m)
    select array_agg(gone.m) into mine from gone;
    insert into switchback.marker select * from unnest(mine);
end $$;

-- Makes the target ready. Its caller leaves the transaction open: COMMIT opens this side. Returns L; NULL if this flip has
-- opened it already.
create or replace function switchback.make_ready(claimed_owner bigint, claimed_epoch bigint, flip bigint,
                                                 slot text)
returns pg_catalog.pg_lsn language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
    peer text := case s.side when 'blue' then 'green' else 'blue' end;
    closing switchback.marker;
    way_back pg_replication_slots;
    start pg_lsn;
begin
    if s.standing = 'active' and s.epoch = claimed_epoch + 1 and s.opened_for = flip then
        return null;
    end if;
    -- A lower epoch is one whose flip was taken back while this side was away: it has followed the stream since.
    if s.standing <> 'standby' or s.epoch > claimed_epoch then
        perform switchback.stale(s, format('can''t be opened for flip %s at epoch %s', flip, claimed_epoch));
    end if;
    select * into closing from switchback.marker where side = peer and purpose = 'sequences';
    if not found or closing.n < flip then
        raise exception using errcode = 'SB002', message = format('the closing marker of flip %s isn''t here', flip);
    elsif closing.n > flip then
        perform switchback.stale(s, format('the closing marker of flip %s is here', closing.n));
    end if;
    select * into way_back from pg_replication_slots where slot_name = slot;
    if not found or way_back.wal_status not in ('reserved', 'extended') then
        raise exception using errcode = 'SB003',
            message = format('slot %s, the way back, is %s', slot, coalesce(way_back.wal_status, 'missing')),
            hint = 'run: switchback prepare';
    end if;
    perform switchback.set_sequences(closing.detail::jsonb);
    execute format('alter subscription %I disable', 'switchback_from_' || peer);
    perform switchback.set_fences(false);
    start := pg_current_wal_insert_lsn();
    if way_back.confirmed_flush_lsn > start then
        raise exception using errcode = 'SB003', message = format('slot %s is ahead of this side', slot),
            hint = 'run: switchback prepare';
    end if;
    update switchback.state set standing = 'active', epoch = claimed_epoch + 1, fenced_for = null, opened_for = flip,
        start_lsn = start;
    perform switchback.renew_markers(s.side);
    return start;
end $$;

-- --- a side that comes back ---

-- What the active side knows of the other: the flip that it was opened for itself, where the other's stream came to, and
-- where the other is to go on.
create or replace function switchback.of_the_other(out opened_for bigint, out has pg_catalog.pg_lsn,
                                                   out start_lsn pg_catalog.pg_lsn)
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    select s.opened_for, s.start_lsn,
           (select pg_replication_origin_progress(o.roname, true) from pg_subscription u
            join pg_replication_origin o on o.roname = 'pg_' || u.oid
            where u.subname = 'switchback_from_' || case s.side when 'blue' then 'green' else 'blue' end
              and u.subdbid = (select oid from pg_database where datname = current_database()))
    into opened_for, start_lsn, has
    from switchback.state s where s.standing = 'active';
end $$;

drop function if exists switchback.fence_left_behind(bigint, bigint);
drop function if exists switchback.holds_more(text, integer);
drop function if exists switchback.rejoin_unchanged(bigint, bigint);

-- Fences a side whose epoch the pair has left behind. Says what is to do next: 'nothing', 'turn' (the source of the flip
-- that opened the active side waits for its turn; 0: that side can't be asked) or 'compare' (it was open: does it hold
-- more than it sent?). Sessions are ended first: a commit that waits for the other side holds its locks, and must not be
-- acknowledged any more.
create or replace function switchback.fence_left_behind(claimed_owner bigint, pair_epoch bigint, opened_for bigint)
returns text language plpgsql as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
begin
    if s.epoch > pair_epoch or (s.epoch = pair_epoch and s.standing = 'active') then
        raise exception using errcode = 'SB004',
            message = pg_catalog.format('this side is %s at epoch %s, and so is the pair at %s', s.standing, s.epoch, pair_epoch);
    end if;
    perform switchback.end_foreign('{}');
    perform switchback.set_fences(true);
    if s.standing = 'standby' then
        update switchback.state set epoch = pair_epoch, fenced_for = null where epoch <> pair_epoch;
        return 'nothing';
    elsif s.standing = 'active' and s.fenced_for is not null and s.epoch = pair_epoch - 1
          and (opened_for = 0 or opened_for = s.fenced_for) then
        return 'turn';
    end if;
    if exists (select from switchback.rejoining) then
        return 'nothing';
    end if;
    update switchback.state set standing = 'diverged', fenced_for = null;
    return 'compare';
end $$;

-- Does the slot hold transactions that the active side lacks (`has`: what it has of this side's), with changes of published
-- tables other than markers? What was committed before this side was opened came from there: the slot is moved past it, or an
-- idle side that was fed for a while would have too many changes to look at. Looks at no more than `most`: beyond that the
-- answer is yes.
create or replace function switchback.holds_more(slot text, has pg_catalog.pg_lsn, most integer) returns boolean language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    since pg_lsn := greatest((select start_lsn from switchback.state), has);
    marker bigint := 'switchback.marker'::regclass::oid::bigint;
    seen bigint;
    more boolean;
begin
    if since is null or since = '0/0' then
        return true;
    end if;
    perform pg_replication_slot_advance(s.slot_name, since) from pg_replication_slots s
        where s.slot_name = slot and s.confirmed_flush_lsn < since and since <= pg_current_wal_flush_lsn();
    with changes as materialized (
        select lsn, xid::text as xid, chr(get_byte(data, 0)) as kind,
               (get_byte(data, 1)::bigint << 24) + (get_byte(data, 2) << 16) + (get_byte(data, 3) << 8) + get_byte(data, 4)
                   as relation
        from pg_logical_slot_peek_binary_changes(slot, null, most, 'proto_version', '1', 'publication_names',
                                                 'switchback_' || (select side from switchback.state)))
    select (select count(*) from changes),
           exists (select from changes group by xid
                   having max(lsn) filter (where kind = 'C') > since
                      and bool_or(kind = 'T' or (kind in ('I', 'U', 'D') and relation <> marker)))
    into seen, more;
    return more or seen >= most;
end $$;

-- It holds nothing more: it becomes the standby, and its stream goes on where it stopped, or where the other was opened.
create or replace function switchback.rejoin_unchanged(claimed_owner bigint, pair_epoch bigint, start pg_catalog.pg_lsn)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
begin
    if s.standing <> 'diverged' or s.epoch >= pair_epoch then
        perform switchback.stale(s, 'can''t rejoin');
    end if;
    perform switchback.follow_from(start);
    update switchback.state set standing = 'standby', epoch = pair_epoch, fenced_for = null;
end $$;

-- Enables the stream that comes in here, from `start` unless it has come further. The origin can be moved backwards
-- silently, so it never is.
create or replace function switchback.follow_from(start pg_catalog.pg_lsn) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    peer text := (select case side when 'blue' then 'green' else 'blue' end from switchback.state);
    stream pg_subscription;
begin
    select * into stream from pg_subscription
    where subname = 'switchback_from_' || peer and subdbid = (select oid from pg_database where datname = current_database());
    if not found then
        raise exception using errcode = 'SB003', message = format('subscription switchback_from_%s is missing', peer),
            hint = 'run: switchback prepare';
    end if;
    if not stream.subenabled then
        if coalesce(pg_replication_origin_progress('pg_' || stream.oid, false), '0/0') < start then
            perform pg_replication_origin_advance('pg_' || stream.oid, start);
        end if;
        execute format('alter subscription %I enable', stream.subname);
    end if;
    perform pg_logical_emit_message(true, 'switchback', 'follow');
end $$;
