#!/usr/bin/env bash
# Measures the proxy beside PgBouncer and the pause of a cutover, and prints the figures beside the targets. Installs
# what is missing (PgBouncer from Debian; PGBOUNCER=path takes another), builds a release.
#
#   tests/bench/run.sh [--seconds N] [--rounds N] [--flips N] [--only traffic|large|tls|idle|flip|gate|takeover]
#                      [--takeovers N] [--asynchronous]
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"
# shellcheck source=tests/packages.sh
. tests/packages.sh
bench=$PACKAGES_BENCH
if [ -n "${PGBOUNCER:-}" ]; then bench=; fi
# shellcheck disable=SC2086 # lists of words
packages_install $PACKAGES_BUILD $PACKAGES_RUN $bench
export PGBOUNCER=${PGBOUNCER:-/usr/sbin/pgbouncer}

folder=${SWITCHBACK_BUILD_DIR:-$top/build-bench}
cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
ninja -C "$folder" >/dev/null
SWITCHBACK_PG_BIN=$(postgres_old)
SWITCHBACK_PG_NEW_BIN=$(postgres_new)
export SWITCHBACK_PG_BIN SWITCHBACK_PG_NEW_BIN SWITCHBACK_BUILD=$folder
exec /usr/bin/python3 tests/bench/bench.py "$@"
