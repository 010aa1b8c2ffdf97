-- The schema `switchback` of one managed database. Run by the manager in one transaction, again with every
-- `prepare`; schema.h says what others may use. Everything names its schema, whatever the search_path is.
--
-- SQLSTATEs of our own, known to reply.c: SB001 owner, epoch or flip is another one's (constraint: the owner that
-- stands), SB002 the marker isn't there, SB003 not as prepare left it, SB004 an operator must decide, SB005 something
-- forbids it just now.

create schema if not exists switchback;

-- One row. In no publication: it says what this side is, not what the pair's data are.
create table if not exists switchback.state (
    one boolean primary key default true check (one),
    version integer not null,
    pair text not null,
    side text not null check (side in ('blue', 'green')),
    system_identifier text not null,
    timeline bigint not null,
    standing text not null check (standing in ('active', 'standby', 'diverged')),
    epoch bigint not null,
    fenced_for bigint,                  -- the flip that fenced this side while it is still `active`
    aborted bigint not null default 0,  -- the last flip that was undone here
    opened_for bigint not null default 0, -- the flip that opened this side
    start_lsn pg_catalog.pg_lsn,        -- where it was opened: the other side's stream begins there
    owner bigint not null default 0,
    manager text not null,
    migrators text[] not null default '{}',
    local_tables text[] not null default '{}',
    finalized timestamptz,              -- the operator ended the way back; the next prepare takes this away
    fresh boolean not null default true, -- as a standby no heartbeat was heard yet: the first may have any number
    gap text                            -- rows of the other side are missing here, as the heartbeats' numbers tell
) with (fillfactor = 50);

-- The tables of this side that prepare has filled while it was a standby: only their rows may be removed to copy
-- them again. A side that was opened since (opened_for) holds rows of its own, and what was noted doesn't count.
create table if not exists switchback.copied (
    name text primary key,
    opened_for bigint not null
);

-- Of a diverged side: keys of the rows that its stranded transactions touched. They are gone here, and come back as the
-- active side has them. While there are any, this side isn't to be trusted.
create table if not exists switchback.rejoining (
    id bigint primary key,
    name text not null,      -- of the table, quoted
    columns text[] not null, -- of its key
    key text[] not null
);

-- One row while the stream that comes in does not flush what it applies, so that it catches up faster. A crash empties
-- an unlogged table, and then rows of that time may be missing.
create unlogged table if not exists switchback.unflushed (since timestamptz not null, one boolean primary key default true check (one));

-- Published both ways; a side's rows are written only there, n only grows. next_xid and running (heartbeats): the
-- transaction ids given out and in use when it was written.
create table if not exists switchback.marker (
    side text not null,
    purpose text not null,
    n bigint not null,
    at timestamptz not null,
    next_xid bigint,
    running integer,
    detail text,
    primary key (side, purpose)
) with (fillfactor = 50);

-- A side that was restored from a copy, or whose slot or origin was moved, asks for what follows and never for what lies
-- between: nothing fails, rows are only missing. But each heartbeat has the number after the last one's.
create or replace function switchback.hear() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state;
    last bigint; -- that was heard here
    next bigint;
begin
    if tg_op = 'DELETE' then -- it is written anew behind that (renew_markers), in the same transaction
        if old.purpose = 'heartbeat' then
            perform set_config('switchback.heard', old.n::text, true);
        end if;
        return null;
    elsif tg_op = 'INSERT' then
        last := nullif(current_setting('switchback.heard', true), '')::bigint;
        next := last;
        if new.purpose <> 'heartbeat' or last is null then
            return null;
        end if;
    else
        last := old.n;
        next := old.n + 1;
    end if;
    select * into s from switchback.state;
    if not found or s.side = new.side or s.standing <> 'standby' then
        return null;
    elsif s.fresh then
        update switchback.state set fresh = false;
    elsif new.n <> next and s.gap is null then
        update switchback.state set gap = format(
            'what %s did between its heartbeats %s and %s is not known here: one of the sides was restored, or the '
            'stream was moved', new.side, last, new.n);
    end if;
    return null;
end $$;

create or replace function switchback.note_standby() returns trigger language plpgsql as $$
begin
    new.fresh := true;
    return new;
end $$;

do $$
begin
    if not exists (select from pg_catalog.pg_attribute
                   where attrelid = 'switchback.state'::pg_catalog.regclass and attname = 'gap') then
        alter table switchback.state add column fresh boolean not null default true, add column gap text;
    end if;
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'switchback.marker'::pg_catalog.regclass
                   and tgname = 'switchback_hear') then
        create trigger switchback_hear after update on switchback.marker for each row
            when (new.purpose = 'heartbeat') execute function switchback.hear();
        alter table switchback.marker enable always trigger switchback_hear;
        create trigger switchback_standby before update on switchback.state for each row
            when (new.standing = 'standby' and old.standing <> 'standby') execute function switchback.note_standby();
        alter table switchback.state enable always trigger switchback_standby;
    end if;
    if not exists (select from pg_catalog.pg_trigger where tgrelid = 'switchback.marker'::pg_catalog.regclass
                   and tgname = 'switchback_hear_anew') then
        create trigger switchback_hear_anew after insert or delete on switchback.marker for each row
            execute function switchback.hear();
        alter table switchback.marker enable always trigger switchback_hear_anew;
    end if;
end $$;

create or replace function switchback.is_local(name text) returns boolean language sql stable as $$
    select exists (
        select from switchback.state s, pg_catalog.unnest(s.local_tables) pattern
        where name operator(pg_catalog.~~) pg_catalog.replace(
            pg_catalog.regexp_replace(
                case when pg_catalog.strpos(pattern, '.') operator(pg_catalog.>) 0 then pattern
                     else pg_catalog.concat('*.', pattern) end,
                '([\\%_])', '\\\1', 'g'),
            '*', '%'))
$$;

-- Most pairs have none: asked once a query, not once a table.
create or replace function switchback.has_no_local() returns boolean language sql stable as $$
    select (select pg_catalog.cardinality(s.local_tables) from switchback.state s) operator(pg_catalog.=) 0
$$;

create or replace view switchback.managed_table as
    select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) as name, c.relkind = 'r' as leaf
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and c.relpersistence = 'p'
      and n.nspname not in ('pg_catalog', 'information_schema', 'switchback') and n.nspname !~ '^pg_'
      and not exists (select from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                        and d.deptype = 'e')
      and (switchback.has_no_local() or not switchback.is_local(pg_catalog.format('%s.%s', n.nspname, c.relname)));

create or replace view switchback.managed_sequence as
    select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) as name
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind = 'S' and c.relpersistence <> 't'
      and n.nspname not in ('pg_catalog', 'information_schema', 'switchback') and n.nspname !~ '^pg_'
      and not exists (select from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                        and d.deptype = 'e')
      and (switchback.has_no_local()
           or not (switchback.is_local(pg_catalog.format('%s.%s', n.nspname, c.relname))
                   or exists (select from pg_catalog.pg_depend d
                              join pg_catalog.pg_class t on t.oid = d.refobjid
                              join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
                              where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
                                and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                                and d.deptype in ('a', 'i')
                                and switchback.is_local(pg_catalog.format('%s.%s', tn.nspname, t.relname)))));

create or replace function switchback.leaves() returns text[] language plpgsql stable as $$
begin
    return (select coalesce(pg_catalog.array_agg(name order by name collate pg_catalog."C"), '{}')
            from switchback.managed_table where leaf);
end $$;

-- The first difference between what should be one set: managed tables, fence triggers, publication, subscription.
create or replace function switchback.table_fault() returns text language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare
    me text;
    peer text;
    fault text;
begin
    select side, case side when 'blue' then 'green' else 'blue' end into me, peer from switchback.state;
    with managed as materialized (select oid, name, leaf from switchback.managed_table),
    fenced as materialized (select tgrelid as oid from pg_trigger where tgname = '!switchback_fence'),
    published as materialized (
        select r.prrelid as oid from pg_publication_rel r join pg_publication p on p.oid = r.prpubid
        where p.pubname = 'switchback_' || me and r.prrelid <> 'switchback.marker'::regclass),
    subscribed as materialized (
        select r.srrelid as oid, r.srsubstate as state
        from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid
        where s.subname = 'switchback_from_' || peer and r.srrelid <> 'switchback.marker'::regclass
          and s.subdbid = (select oid from pg_database where datname = current_database()))
    select difference into fault from (
        select 0 as rank, format('subscription %s is enabled though this side is active', u.subname) as difference
        from pg_subscription u, switchback.state t
        where u.subname = 'switchback_from_' || peer and u.subenabled and t.standing = 'active'
          and u.subdbid = (select oid from pg_database where datname = current_database())
        union all
        select 0, t.gap from switchback.state t where t.gap is not null and t.standing = 'standby'
        union all
        select 0, case when exists (select from switchback.unflushed) then 'it is still catching up'
                       else format('subscription %s does not flush what it applies', u.subname) end
        from pg_subscription u
        where u.subname = 'switchback_from_' || peer and u.subsynccommit <> 'local'
          and u.subdbid = (select oid from pg_database where datname = current_database())
        union all
        select 0, format('subscription %s of somebody else writes into this database', u.subname)
        from pg_subscription u
        where u.subenabled and u.subname not in ('switchback_from_blue', 'switchback_from_green')
          and u.subdbid = (select oid from pg_database where datname = current_database())
        union all
        select 0, format('event trigger %s is missing or disabled', e.name)
        from (values ('switchback_refuse_ddl'), ('switchback_restore_fences')) e (name)
        where not exists (select from pg_event_trigger v where v.evtname = e.name and v.evtenabled = 'A')
        union all
        select 1, format('table %s is also written through %s, which is not managed', m.name, i.inhparent::regclass)
        from pg_inherits i join managed m on m.oid = i.inhrelid
        where not exists (select from managed p where p.oid = i.inhparent)
        union all
        select 1, format('table %s has no fence trigger', name)
        from managed m where not exists (select from fenced f where f.oid = m.oid)
        union all
        select 2, format('table %s is not in publication switchback_%s', name, me)
        from managed m where leaf and not exists (select from published p where p.oid = m.oid)
        union all
        select 3, format('table %s is not in subscription switchback_from_%s', name, peer)
        from managed m where leaf and not exists (select from subscribed s where s.oid = m.oid)
        union all
        select 4, format('table %s is published but not managed', p.oid::regclass)
        from published p where not exists (select from managed m where m.leaf and m.oid = p.oid)
        union all
        select 5, format('table %s is subscribed but not managed', s.oid::regclass)
        from subscribed s where not exists (select from managed m where m.leaf and m.oid = s.oid)
        union all
        select 6, format('table %s is still being copied (state %s)', s.oid::regclass, s.state)
        from subscribed s where s.state <> 'r'
        union all
        select 7, format('table %s has a fence trigger but is not managed', f.oid::regclass)
        from fenced f where not exists (select from managed m where m.oid = f.oid)
    ) differences order by rank, difference limit 1;
    return fault;
end $$;

-- --- fence ---

-- Ours: the manager in replica mode, which every session of ours is in, and the apply workers. Of these only TRUNCATE and
-- the initial copy fire statement triggers.
create or replace function switchback.is_ours() returns boolean language sql stable
set search_path = pg_catalog, pg_temp as $$
    select current_setting('session_replication_role') = 'replica'
           and (session_user = (select manager from switchback.state)
                or exists (select from pg_stat_get_activity(pg_backend_pid()) a
                           where a.backend_type like 'logical replication%'))
$$;

-- Enabled ALWAYS, so that it stops a superuser in replica mode too.
create or replace function switchback.fence() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
begin
    if switchback.is_ours() then
        return null;
    end if;
    raise exception using errcode = '25006',
        message = format('cannot write to table %I.%I: switchback has fenced this side', tg_table_schema, tg_table_name),
        hint = 'The other side of the pair takes the writes.';
end $$;

create or replace function switchback.set_fences(up boolean) returns bigint language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
    fenced oid;
    altered bigint := 0;
begin
    for fenced in select tgrelid from pg_trigger
                  where tgname = '!switchback_fence' and tgenabled <> case when up then 'A' else 'D' end::"char"
                  order by tgrelid loop
        execute format('alter table %s %s trigger "!switchback_fence"', fenced::regclass,
                       case when up then 'enable always' else 'disable' end);
        altered := altered + 1;
    end loop;
    return altered;
end $$;

create or replace function switchback.is_fenced() returns boolean language sql stable as $$
    select coalesce((select s.standing operator(pg_catalog.<>) 'active' or s.fenced_for is not null
                     from switchback.state s), false)
$$;

-- Where the fences should be up, one that spares replica mode isn't; where they shouldn't, any that fires is.
create or replace function switchback.up_states() returns "char"[] language sql stable as $$
    select case when switchback.is_fenced() then '{A}' else '{A,O,R}' end::"char"[]
$$;

-- A transaction for each table: its lock is held for a moment, though the application writes all the while.
create or replace procedure switchback.install_fences(inout created bigint, inout dropped bigint,
                                                      inout altered bigint)
language plpgsql as $$
declare
    target oid;
    command text;
begin
    for target in select m.oid from switchback.managed_table m
                  where not exists (select from pg_catalog.pg_trigger t
                                    where t.tgrelid = m.oid and t.tgname = '!switchback_fence') loop
        execute pg_catalog.format(
            'create trigger "!switchback_fence" before insert or update or delete or truncate on %s '
            'for each statement execute function switchback.fence()', target::pg_catalog.regclass);
        execute pg_catalog.format('alter table %s %s trigger "!switchback_fence"', target::pg_catalog.regclass,
                                  case when switchback.is_fenced() then 'enable always' else 'disable' end);
        created := created + 1;
        commit;
    end loop;
    for target in select t.tgrelid from pg_catalog.pg_trigger t
                  where t.tgname = '!switchback_fence'
                    and not exists (select from switchback.managed_table m where m.oid = t.tgrelid) loop
        execute pg_catalog.format('drop trigger "!switchback_fence" on %s', target::pg_catalog.regclass);
        dropped := dropped + 1;
        commit;
    end loop;
    altered := switchback.set_fences(switchback.is_fenced());
end $$;

-- DDL isn't replicated: on a fenced side only the manager and the migrators may issue it.
create or replace function switchback.refuse_ddl() returns event_trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    s switchback.state;
begin
    select * into s from switchback.state;
    if not found or (s.standing = 'active' and s.fenced_for is null) or session_user = s.manager
       or session_user::text = any (s.migrators) or current_setting('role') = any (s.migrators) then
        return;
    end if;
    raise exception using errcode = '25006', message = format('cannot run %s: switchback has fenced this side', tg_tag),
        hint = 'The other side of the pair is active. Roles in `migrators` may change the schema here.';
end $$;

-- ENABLE TRIGGER ALL would fence the active side, DISABLE TRIGGER ALL open the standby.
create or replace function switchback.restore_fences() returns event_trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    fenced oid;
    up boolean := switchback.is_fenced();
begin
    if switchback.is_ours() then   -- a flip: its state row changes after the triggers
        return;
    end if;
    for fenced in
        select t.tgrelid from pg_trigger t
        where t.tgname = '!switchback_fence' and t.tgenabled <> case when up then 'A' else 'D' end::"char"
          and t.tgrelid in (
              select c.objid from pg_event_trigger_ddl_commands() c where c.classid = 'pg_class'::regclass
              union all
              select p.relid from pg_event_trigger_ddl_commands() c, pg_partition_tree(c.objid::regclass) p
              where c.classid = 'pg_class'::regclass) loop
        execute format('alter table %s %s trigger "!switchback_fence"', fenced::regclass,
                       case when up then 'enable always' else 'disable' end);
    end loop;
end $$;

do $$
begin
    if not exists (select from pg_catalog.pg_event_trigger where evtname = 'switchback_refuse_ddl') then
        create event trigger switchback_refuse_ddl on ddl_command_start execute function switchback.refuse_ddl();
    end if;
    if not exists (select from pg_catalog.pg_event_trigger where evtname = 'switchback_restore_fences') then
        create event trigger switchback_restore_fences on ddl_command_end when tag in ('ALTER TABLE')
            execute function switchback.restore_fences();
    end if;
    alter event trigger switchback_refuse_ddl enable always;
    alter event trigger switchback_restore_fences enable always;
end $$;

-- --- ownership ---

create or replace function switchback.stale(s switchback.state, message text) returns void language plpgsql as $$
begin
    raise exception using errcode = 'SB001', message = message, constraint = s.owner::text,
        detail = pg_catalog.format('owner %s, epoch %s, %s, fenced for %s', s.owner, s.epoch, s.standing, s.fenced_for);
end $$;

-- Every writing transaction of ours begins here: from now to its end nobody else changes the state.
create or replace function switchback.claim(claimed_owner bigint) returns switchback.state language plpgsql as $$
declare
    s switchback.state;
begin
    if pg_catalog.current_setting('session_replication_role') <> 'replica' then
        raise exception using errcode = 'SB005', message = 'the manager may not set session_replication_role',
            hint = 'Make the manager a superuser on both sides.';
    end if;
    select * into s from switchback.state for update;
    if not found then
        raise exception using errcode = 'SB003', message = 'switchback.state has no row',
            hint = 'run: switchback prepare';
    end if;
    if s.owner <> claimed_owner then
        perform switchback.stale(s, pg_catalog.format('owned by controller %s, not %s', s.owner, claimed_owner));
    end if;
    return s;
end $$;

-- --- markers ---

create or replace function switchback.mark(s switchback.state, for_purpose text, at_n bigint, with_detail text)
returns void language plpgsql as $$
declare
    written bigint;
begin
    insert into switchback.marker as m (side, purpose, n, at, detail)
    values (s.side, for_purpose, at_n, pg_catalog.clock_timestamp(), with_detail)
    on conflict (side, purpose) do update set n = at_n, at = excluded.at, detail = excluded.detail
        where m.n <= at_n
    returning m.n into written;
    if written is null then
        perform switchback.stale(s, pg_catalog.format('a later marker than %s stands', at_n));
    end if;
end $$;

-- running: transactions under way with an id. None committed after this marker has another id than these or one
-- given out later, so that next_xid + running bounds what a lost side can have lost.
create or replace function switchback.beat(claimed_owner bigint, claimed_epoch bigint, for_purpose text,
                                           out written_n bigint, out written_at timestamptz, out given_xid bigint,
                                           out open_xids integer)
language plpgsql as $$
declare
    s switchback.state := switchback.claim(claimed_owner);
    now_open pg_catalog.pg_snapshot := pg_catalog.pg_current_snapshot();
begin
    if s.standing <> 'active' or s.fenced_for is not null or s.epoch <> coalesce(claimed_epoch, s.epoch) then
        perform switchback.stale(s, pg_catalog.format('not active at epoch %s', claimed_epoch));
    end if;
    given_xid := pg_catalog.pg_snapshot_xmax(now_open)::text::bigint;
    open_xids := (select pg_catalog.count(*) from pg_catalog.pg_snapshot_xip(now_open));
    insert into switchback.marker as m (side, purpose, n, at, next_xid, running)
    values (s.side, for_purpose, 1, pg_catalog.clock_timestamp(), given_xid, open_xids)
    on conflict (side, purpose) do update
        set n = m.n + 1, at = excluded.at, next_xid = excluded.next_xid, running = excluded.running
    returning m.n, m.at into written_n, written_at;
end $$;

-- --- the standing sample ---

-- The worker of the stream that comes in here. 13 and 14 count no errors: there a failing worker is known by its
-- pid, which changes with each start.
create or replace function switchback.stream_in(peer text, out enabled boolean, out worker integer, out errors bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    stream oid;
    version integer := current_setting('server_version_num')::integer;
begin
    select s.oid, s.subenabled into stream, enabled from pg_subscription s
    where s.subname = 'switchback_from_' || peer
      and s.subdbid = (select d.oid from pg_database d where d.datname = current_database());
    errors := 0;
    if version >= 160000 then
        select w.pid into worker from pg_stat_subscription w
        where w.subid = stream and w.relid is null and w.leader_pid is null;
    else
        select w.pid into worker from pg_stat_subscription w where w.subid = stream and w.relid is null;
    end if;
    if version >= 150000 then
        select e.apply_error_count + e.sync_error_count into errors from pg_stat_subscription_stats e
        where e.subid = stream;
    end if;
end $$;

-- The slot that feeds the other side: how far behind its subscriber is, and whether it still has its WAL.
create or replace function switchback.stream_out(slot text, out there boolean, out streaming boolean,
                                                 out behind bigint, out status text, out safe bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    select true, coalesce(r.state = 'streaming', false),
           greatest(pg_current_wal_lsn() - coalesce(r.replay_lsn, k.confirmed_flush_lsn), 0)::bigint,
           k.wal_status, k.safe_wal_size
    into there, streaming, behind, status, safe
    from pg_replication_slots k left join pg_stat_replication r on r.pid = k.active_pid
    where k.slot_name = slot;
    there := coalesce(there, false);
end $$;

-- Fences and table sets, once a second.
create or replace function switchback.standing_check(out tables bigint, out fences_up bigint, out fault text,
                                                     out leaves text)
language sql stable as $$
    select (select pg_catalog.count(*) from switchback.managed_table),
           (select pg_catalog.count(*) from pg_catalog.pg_trigger t
            where t.tgname operator(pg_catalog.=) '!switchback_fence'
              and t.tgenabled operator(pg_catalog.=) any ((select switchback.up_states())::"char"[])),
           switchback.table_fault(), pg_catalog.md5(switchback.leaves()::text)
$$;
