#!/usr/bin/env bash
# Every driver, unchanged, through TLS and SCRAM, while the proxy flips every two seconds: installs what is missing
# (as root), builds, runs, and prints what each driver did. README.md beside this says what the drivers do.
#
#   tests/drivers/matrix/run.sh [--seconds N] [DRIVER...]
#
# --seconds: for how long (default 60). SWITCHBACK_BUILD_DIR: where to build (default build-test, with sanitizers).
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
cd "$top"
# shellcheck source=tests/packages.sh
. tests/packages.sh

seconds=60 drivers=()
while [ $# -gt 0 ]; do
  case $1 in
  --seconds) seconds=$2 && shift ;;
  -*)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 2
    ;;
  *) drivers+=("$1") ;;
  esac
  shift
done

# shellcheck disable=SC2086 # a list of words
packages_install $PACKAGES_BUILD $PACKAGES_RUN
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache); fi
folder=${SWITCHBACK_BUILD_DIR:-$top/build-test}
cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DSWITCHBACK_SANITIZE=address,undefined "${launcher[@]}" >/dev/null
ninja -C "$folder" switchback >/dev/null

SWITCHBACK_PG_BIN=$(postgres_old)
SWITCHBACK_PG_NEW_BIN=$(postgres_new)
SWITCHBACK_DRIVERS=$(drivers_build "$folder/matrix")
[ ${#drivers[@]} = 0 ] || SWITCHBACK_DRIVERS="${drivers[*]}"
SWITCHBACK_MATRIX_REPORT=$(mktemp)
trap 'cat "$SWITCHBACK_MATRIX_REPORT"; rm -f "$SWITCHBACK_MATRIX_REPORT"' EXIT
export SWITCHBACK_PG_BIN SWITCHBACK_PG_NEW_BIN SWITCHBACK_DRIVERS SWITCHBACK_MATRIX_REPORT
SWITCHBACK_BUILD=$folder SWITCHBACK_MATRIX_SECONDS=$seconds /usr/bin/python3 tests/integration/runner.py matrix.
