#!/usr/bin/env bash
# Switchback in three minutes, on a bare Debian machine: two real clusters, fifty clients, a cutover that they don't
# notice, a green that turns out slow and is left again by itself, a second cutover, and the proof that nothing was
# lost. Everything runs on 127.0.0.1 and is gone afterwards.
#
#   docker/demo.sh [--keep]
#
# --keep: leave it running, and say how to connect and what to try. Works as root (clusters then run as user
# postgres), or as a user if the packages are there.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=tests/packages.sh
. "$top/tests/packages.sh"

keep=
case ${1:-} in
'') ;;
--keep) keep=1 ;;
*)
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
  exit 2
  ;;
esac

SESSIONS=50 ACCOUNTS=5000
if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' green_ink=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'; else bold='' dim='' green_ink='' red='' plain=''; fi
number=0
title() { printf '\n%s%d  %s%s\n' "$bold" $((number += 1)) "$*" "$plain"; }
say() { printf '   %s\n' "$*"; }
quiet() { printf '   %s%s%s\n' "$dim" "$*" "$plain"; }
fail() {
  printf '\n%s%s%s\n' "$red" "$*" "$plain" >&2
  if [ -s "${folder:-}/switchback.log" ]; then
    printf 'the end of %s:\n' "$folder/switchback.log" >&2
    tail -n 15 "$folder/switchback.log" >&2
  fi
  exit 1
}
seconds() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(seconds)" 'BEGIN { printf "%.1f s", b - a }'; }

# --- what everything runs in, and its end

folder=$(mktemp -d "${TMPDIR:-/tmp}/switchback-demo.XXXXXX")
chmod 755 "$folder"
daemon="" load=""
finish() {
  trap '' INT TERM # an impatient second Ctrl-C must not leave the clusters behind
  [ -z "$load" ] || { kill "$load" && wait "$load"; } 2>/dev/null || true
  [ -z "$daemon" ] || { kill "$daemon" && wait "$daemon"; } 2>/dev/null || true
  local side
  for side in blue green; do
    [ ! -e "$folder/$side/postmaster.pid" ] || as_cluster_user "$old_bin/pg_ctl" -D "$folder/$side" -m immediate stop >/dev/null 2>&1 || true
  done
  rm -rf "$folder"
}
trap finish EXIT
trap 'exit 130' INT TERM

free_port() { # FIRST: the first port from there on that nobody listens on
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}

start_cluster() { # NAME BIN PORT
  local name=$1 bin=$2 port=$3
  mkdir "$folder/$name"
  [ "$(id -u)" != 0 ] || chown postgres: "$folder/$name"
  as_cluster_user "$bin/initdb" -D "$folder/$name" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
  cat >>"$folder/$name/postgresql.conf" <<-CONF
	listen_addresses = '127.0.0.1'
	port = $port
	unix_socket_directories = ''
	max_connections = 300
	wal_level = logical                  # what prepare asks for
	wal_retrieve_retry_interval = 100ms  # or a stream starts up to five seconds later
	lc_messages = 'C'
	CONF
  as_cluster_user "$bin/pg_ctl" -D "$folder/$name" -l "$folder/$name/log" -w start >/dev/null || {
    tail -n 10 "$folder/$name/log" >&2
    fail "the cluster $name does not start"
  }
  on_side "$port" postgres postgres -c "create role switchback superuser login"
}

on_side() { # PORT DATABASE USER ARGUMENT...: psql, around the proxy
  local port=$1 database=$2 user=$3
  shift 3
  PGOPTIONS='--client-min-messages=warning' "$old_bin/psql" -XqAt -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U "$user" -d "$database" "$@"
}

switchback() { "$build/switchback" "$@"; }
field() { # FILE KEY...: a value out of a JSON document
  /usr/bin/python3 -c 'import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]:
    value = value[int(key)] if isinstance(value, list) else value.get(key) if value else None
print("" if value is None else value)' "$@"
}
wait_status() { # SECONDS WHAT PYTHON-EXPRESSION over s, the status
  local end=$((SECONDS + $1))
  until switchback status --json >"$folder/status.json" 2>/dev/null &&
    /usr/bin/python3 -c "import json, sys; s = json.load(open(sys.argv[1])); sys.exit(not ($3))" "$folder/status.json"; do
    [ $SECONDS -lt $end ] || fail "this did not come true within $1 s: $2"
    sleep 0.2
  done
}

printf '%sSwitchback%s: a cutover that nobody notices, and a way back that is always open.\n' "$bold" "$plain"

title "Packages and build"
began=$(seconds)
# shellcheck disable=SC2086 # lists of words
packages_install $PACKAGES_BUILD $PACKAGES_RUN || fail "packages are missing"
build=${SWITCHBACK_BUILD_DIR:-$top/build-demo}
cmake -S "$top" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo >"$folder/build.log" 2>&1 &&
  ninja -C "$build" switchback ledger >>"$folder/build.log" 2>&1 || {
  tail -n 30 "$folder/build.log" >&2
  fail "the build fails"
}
say "$(switchback version | head -n 1), built in $(since "$began")"
old_bin=$(postgres_old)
new_bin=$(postgres_new)
started=$(seconds)

title "Two clusters"
if [ -z "$new_bin" ]; then
  new_bin=$old_bin
  say "PostgreSQL 17 is not to be had here, so green runs the same version as blue."
fi
blue_port=$(free_port 54320) green_port=$(free_port $((blue_port + 1))) port=$(free_port 6432) http_port=$(free_port $((port + 1)))
start_cluster blue "$old_bin" "$blue_port"
start_cluster green "$new_bin" "$green_port"
on_side "$blue_port" postgres postgres -c "create role app login" -c "create database app owner app"
on_side "$blue_port" app app -v accounts=$ACCOUNTS -f "$top/tests/drivers/ledger.sql"
say "blue    PostgreSQL $(on_side "$blue_port" postgres postgres -c 'show server_version' | cut -d' ' -f1), port $blue_port: $ACCOUNTS accounts"
say "green   PostgreSQL $(on_side "$green_port" postgres postgres -c 'show server_version' | cut -d' ' -f1), port $green_port: empty"

title "Switchback in front of them"
export SWITCHBACK_SOCKET=$folder/control.sock
cat >"$folder/switchback.yaml" <<CONF
listen:  { host: 127.0.0.1, port: $port }
control: { socket: $folder/control.sock }
http:    { listen: "127.0.0.1:$http_port" }
state:   { dir: $folder/state }
sides:
  blue:  { host: 127.0.0.1, port: $blue_port }
  green: { host: 127.0.0.1, port: $green_port }
manager:   { user: switchback }
databases: [ app ]
auth:      { method: trust }             # the demo's clusters trust 127.0.0.1; yours won't
prepare:   { pg_bin_dir: $old_bin }
gates:
  # green may be at most three times as slow as blue was
  - { name: latency, metric: latency_p95, max_increase: 200%, failures: 3, interval: 500ms, min_samples: 50 }
  - { name: errors,  metric: error_rate, max: 1%, failures: 3, interval: 500ms }
watch:     { duration: 10m, flip_back: auto }
CONF
"$build/switchback" serve -c "$folder/switchback.yaml" >"$folder/switchback.log" 2>&1 &
daemon=$!
wait_status 20 "the daemon answers" 's["active"] == "blue" and s["sides"]["blue"]["reachable"]'
say "clients connect to 127.0.0.1:$port, as they would to the database"
sed -n '/^gates/,/^watch/s/^/   | /p' "$folder/switchback.yaml"

title "$SESSIONS clients"
begin_load() {
  "$build/tests/ledger" run "host=127.0.0.1 port=$port user=app dbname=app" --out "$folder/ledger" --sessions $SESSIONS --rate 10 \
    --accounts $ACCOUNTS >"$folder/ledger.json" 2>"$folder/ledger.err" &
  load=$!
}
begin_load
wait_status 20 "the clients are there" "s['sessions']['total'] >= $SESSIONS"
say "each with a setting of its own (app.tenant), a time zone and four prepared statements; they transfer"
say "between accounts, append and read back what they were promised, until the end of this demo"

title "switchback prepare"
began=$(seconds)
switchback prepare >"$folder/prepare" 2>&1 || fail "prepare failed: $(tail -n 5 "$folder/prepare")"
grep -E 'dumping|slot|MB|marker|^prepared' "$folder/prepare" | sed 's/^/   | /'
wait_status 60 "both sides are in sync" 's["phase"] == "steady" and s["way_back"]["open"]'
say "green follows blue, $(since "$began")"

flip() { # VERB FILE
  switchback "$1" --json >"$folder/$2.json" || fail "$1 ended with $?: $(cat "$folder/$2.json")"
  say "$(field "$folder/$2.json" from) → $(field "$folder/$2.json" to): $(field "$folder/$2.json" moved) sessions moved," \
    "$(field "$folder/$2.json" disconnected) disconnected; they paused for $(field "$folder/$2.json" stall_ms p50) ms" \
    "(median), $(field "$folder/$2.json" stall_ms max) ms at most"
}
sleep 5 # what latency is judged by

title "switchback cutover"
flip cutover first
wait_status 30 "the way back is open" 's["phase"] == "watch" and s["way_back"]["open"]'
sleep 3
switchback status | sed 's/^/   | /'

title "Green turns out to be slow"
on_side "$green_port" app postgres <<'SQL'
create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.06); return new; end $$;
create trigger slow before insert on entry for each row execute function slow();
SQL
began=$(seconds)
say "each insert there now takes 60 ms longer; nobody tells Switchback"
wait_status 60 "traffic is back on blue" 's["active"] == "blue" and s["phase"] == "steady"'
say "${green_ink}back on blue by itself, $(since "$began") later${plain}"
switchback events --json >"$folder/events" # one document a line
/usr/bin/python3 - "$folder/events" <<'PY'
import json, sys
told = [e for e in map(json.loads, open(sys.argv[1])) if e["type"] in ("gate", "alarm", "flip")]
for event in told[-4:]:
    print("   | %s  %s" % (event["time"][11:19], event["message"]))
PY

title "Green is mended; cutover again"
on_side "$green_port" app switchback -c "drop trigger slow on entry" -c "drop function public.slow()" # the manager may, on the standby
wait_status 60 "the way back is open" 's["way_back"]["open"]'
sleep 2
flip cutover second
wait_status 30 "the way back is open" 's["way_back"]["open"]'
sleep 3

title "Is everything there?"
errors=0
kill "$load" && wait "$load" || errors=1
load=
[ -s "$folder/ledger.json" ] || fail "the load said nothing: $(cat "$folder/ledger.err")"
same=
tables=$(on_side "$green_port" app postgres -c "select string_agg(c.oid::regclass::text, ' ' order by 1) from pg_class c join pg_namespace n
  on n.oid = relnamespace where relkind = 'r' and nspname = 'public'")
for _ in $(seq 50); do
  same=1
  for table in $tables; do
    for side in blue green; do
      side_port=${side}_port
      on_side "${!side_port}" app postgres -c "select t::text from $table t order by 1" >"$folder/$side.$table"
    done
    cmp -s "$folder/blue.$table" "$folder/green.$table" || same=
  done
  [ -z "$same" ] || break
  sleep 0.2
done
for table in $tables; do
  if cmp -s "$folder/blue.$table" "$folder/green.$table"; then
    say "$(printf '%-10s %8d rows, the same on blue and green' "$table" "$(wc -l <"$folder/green.$table")")"
  else
    say "${red}$table differs:${plain}"
    diff "$folder/blue.$table" "$folder/green.$table" | head -n 5
    errors=1
  fi
done
for side in blue green; do
  side_port=${side}_port
  "$build/tests/ledger" verify "host=127.0.0.1 port=${!side_port} user=postgres dbname=app" --out "$folder/ledger" >"$folder/verify.$side" || errors=1
done
switchback events --json >"$folder/events"
/usr/bin/python3 "$top/docker/report.py" "$folder" || errors=1
quiet "the whole demo took $(since "$started"), after packages and build"
[ $errors = 0 ] || fail "something went wrong, see above"

if [ -n "$keep" ]; then
  # from now on whoever tries it decides: beside blue's quiet minutes any other load on green would look slow
  sed -i 's/flip_back: auto/flip_back: manual/' "$folder/switchback.yaml"
  switchback reload >/dev/null
  begin_load
  cat <<TEXT

${bold}It is still running; Ctrl-C ends it and cleans up.${plain} In another terminal:

   export SWITCHBACK_SOCKET=$SWITCHBACK_SOCKET PATH=$build:\$PATH
   psql -h 127.0.0.1 -p $port -U app app     a client; \`show server_version\` says where you are
   switchback status                         which side, in sync, and is the way back open
   switchback flip-back                      to blue; psql stays connected (a failing gate only alarms now)
   switchback check                          what a cutover would find
   switchback cutover --dry-run              what it would do, and how long clients would wait
   switchback hold --for 10s --reason try    stop everybody for ten seconds
   switchback watch                          live
   curl http://127.0.0.1:$http_port/metrics
   $folder/switchback.yaml         the configuration; $folder/switchback.log the log
TEXT
  wait "$daemon" || true
fi
