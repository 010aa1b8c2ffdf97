#!/usr/bin/env bash
# Makes the programs of the matrix ready in a folder, and prints the names of the drivers that can run from there.
# What a driver lacks is said on standard error.
#
#   tests/drivers/matrix/build.sh FOLDER
set -euo pipefail
source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
folder=$(cd "$1" && pwd)
modules="pg@8.23.1 pg-copy-streams@6.0.6 postgres@3.4.9 sequelize@6.37.8" # as tried
log=$folder/build.log
: >"$log"

offer() { # NAME COMMAND...: the driver can run if the command succeeds
  local name=$1
  shift
  if "$@" >>"$log" 2>&1; then echo "$name"; else echo "driver $name can't run here: $log says why" >&2; fi
}

# Debian's Go packages are sources below one GOPATH, without modules
go_program() {
  GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS='' go build -o "$folder/$1" "$source/common.go" "$source/$1.go"
}

npm_modules() {
  [ "$(cat "$folder/modules" 2>/dev/null)" = "$modules" ] && return 0
  # shellcheck disable=SC2086 # a list of words
  (cd "$folder" && timeout 300 npm install --prefix . --no-save --no-audit --no-fund $modules) && echo "$modules" >"$folder/modules"
}
if ! npm_modules >>"$log" 2>&1; then echo "npm can't get $modules" >&2; fi

for driver in psycopg2 psycopg asyncpg; do
  offer "${driver/%psycopg/psycopg3}" /usr/bin/python3 -c "import $driver"
done
offer odbc /usr/bin/python3 -c "import glob, pyodbc; glob.glob('/usr/lib/*/odbc/psqlodbcw.so')[0]"
offer pgjdbc javac -d "$folder" -cp /usr/share/java/postgresql.jar "$source/Pgjdbc.java"
offer dbd_pg perl -MDBD::Pg -e 1
offer ruby_pg ruby -r pg -e 1
for program in lib_pq pgx; do
  offer $program go_program $program
done
offer node_postgres env NODE_PATH="$folder/node_modules" node -e 'require("pg"), require("pg-copy-streams")'
offer postgres_js env NODE_PATH="$folder/node_modules" node -e 'require("postgres")'
offer sequelize env NODE_PATH="$folder/node_modules" node -e 'require("sequelize")'
