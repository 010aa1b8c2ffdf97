#!/usr/bin/env bash
# Builds with sanitizers and runs all tests on a bare Debian machine: installs what is missing (as root; else it says
# what to install), builds, runs the checks, the unit tests and the integration tests. The last line says
# `N passed, N failed`, the exit status is 0 only if none failed.
#
#   tests/run.sh [--unit] [--integration [PATTERN]] [--long] [--keep]
#
# --unit: checks, unit tests and short fuzzing only. --integration: the integration tests only, or those whose name holds PATTERN.
# --long: those that take long, too (the kill matrix: hours). --keep: keep the folders of the integration tests.
# SWITCHBACK_BUILD_DIR: where to build (default build-test);
# SWITCHBACK_CACHE: where other versions of PostgreSQL and its own tests are kept; SWITCHBACK_JOBS: how many integration tests at a time.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
# shellcheck source=tests/packages.sh
. tests/packages.sh

unit=1 integration=1 patterns=() options=()
while [ $# -gt 0 ]; do
  case $1 in
  --unit) integration=0 ;;
  --integration)
    unit=0
    while [ $# -gt 1 ] && [ "${2#--}" = "$2" ]; do
      patterns+=("$2")
      shift
    done
    ;;
  --keep) options+=(--keep) ;;
  --long) options+=(--long) ;;
  *)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 2
    ;;
  esac
  shift
done

FUZZ_SECONDS=10 # for each target; tests/fuzz/run.sh does it for longer
passed=0 failed=0
count() { # the numbers of a last line "N passed, N failed"
  local line
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$1" | tail -n 1)
  if [ -n "$line" ]; then
    set -- $line
    passed=$((passed + $1)) failed=$((failed + $3))
  else
    failed=$((failed + 1))
  fi
}
step() { printf '\n== %s\n' "$*"; }
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# shellcheck disable=SC2086 # lists of words
packages_install $PACKAGES_BUILD $PACKAGES_RUN $PACKAGES_CHECK $PACKAGES_SERVICE
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache); fi

build() { # FOLDER SANITIZERS TARGET...
  local folder=$1 sanitize=$2
  shift 2
  cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DSWITCHBACK_SANITIZE="$sanitize" "${launcher[@]}" >"$output" 2>&1 &&
    ninja -C "$folder" "$@" >"$output" 2>&1 || {
    tail -n 40 "$output"
    echo "the build with $sanitize fails"
    echo "$passed passed, $((failed + 1)) failed"
    exit 1
  }
}

unit_tests() { # FOLDER [CTEST-OPTION...]
  local folder=$1
  shift
  ctest --test-dir "$folder" --output-on-failure -j "$(nproc)" "$@" 2>&1 | tee "$output" || true
  local line
  line=$(grep -oE '[0-9]+ tests failed out of [0-9]+' "$output" || true)
  if [ -n "$line" ]; then
    set -- $line
    passed=$((passed + $6 - $1)) failed=$((failed + $1))
  else
    failed=$((failed + 1))
  fi
}

folder=${SWITCHBACK_BUILD_DIR:-$top/build-test}
step "build with AddressSanitizer and UndefinedBehaviorSanitizer in $folder"
build "$folder" address,undefined

if [ $unit = 1 ]; then
  step "checks"
  /usr/bin/python3 tests/checks.py "$folder" | tee "$output" || true
  count "$output"
  step "unit tests"
  unit_tests "$folder" -R '_test$'
  step "simulated flips"
  "$folder/tests/sim" | tee "$output" || true
  count "$output"
  step "mutations of the simulator"
  /usr/bin/python3 tests/sim/mutations.py | tee "$output" || true
  count "$output"
  step "unit tests under ThreadSanitizer"
  build "$folder-tsan" thread
  TSAN_OPTIONS="suppressions=$top/tests/tsan.supp ${TSAN_OPTIONS:-}" unit_tests "$folder-tsan" -R '_test$'
  step "fuzzing"
  SWITCHBACK_FUZZ_DIR=$folder-fuzz tests/fuzz/run.sh "$FUZZ_SECONDS" | tee "$output" || true
  count "$output"
fi

if [ $integration = 1 ]; then
  step "integration tests"
  # shellcheck disable=SC2086 # a list of words
  packages_install $PACKAGES_NETWORK || echo "so the tests in network namespaces are NOT RUN"
  SWITCHBACK_PG_BIN=$(postgres_old)
  SWITCHBACK_PG_NEW_BIN=$(postgres_new)
  if [ -z "$SWITCHBACK_PG_NEW_BIN" ]; then
    echo "PostgreSQL 17 is not to be had, so both sides run $("$SWITCHBACK_PG_BIN/postgres" --version)"
  fi
  SWITCHBACK_REGRESS=$(tests/regress/fetch.sh) || {
    echo "PostgreSQL's own tests are not to be had, so they are NOT RUN"
    SWITCHBACK_REGRESS=
  }
  SWITCHBACK_PG_VERSIONS=$(postgres_versions)
  SWITCHBACK_DRIVERS=$(drivers_build "$folder/matrix")
  export SWITCHBACK_PG_BIN SWITCHBACK_PG_NEW_BIN SWITCHBACK_PG_VERSIONS SWITCHBACK_REGRESS SWITCHBACK_DRIVERS SWITCHBACK_BUILD=$folder
  /usr/bin/python3 tests/integration/runner.py "${options[@]}" ${SWITCHBACK_JOBS:+--jobs "$SWITCHBACK_JOBS"} "${patterns[@]}" | tee "$output" || true
  count "$output"
fi

echo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
