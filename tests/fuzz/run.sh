#!/usr/bin/env bash
# Builds the libFuzzer targets and runs them. The last line says `N passed, N failed`: a target passes if it found
# nothing.
#
#   tests/fuzz/run.sh [SECONDS [TARGET...]]     seconds for each target (default 60)
#
# What a run learns is kept in build-fuzz/corpus, so that the next one goes on from there; what it finds, too. Few
# inputs of tests/fuzz/corpus are the beginning. SWITCHBACK_FUZZ_DIR: where to build; SWITCHBACK_JOBS: how many at a time.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"
# shellcheck source=tests/packages.sh
. tests/packages.sh

seconds=${1:-60}
[ $# = 0 ] || shift
# shellcheck disable=SC2086 # lists of words
packages_install $PACKAGES_BUILD $PACKAGES_FUZZ
folder=${SWITCHBACK_FUZZ_DIR:-$top/build-fuzz}
launcher=()
if command -v ccache >/dev/null; then launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache); fi
mkdir -p "$folder"
targets=("$@")
[ $# -gt 0 ] || targets=($(sed -n 's/^ *foreach(name \(.*\))$/\1/p' tests/CMakeLists.txt | tail -n 1))
if ! { cmake -S . -B "$folder" -G Ninja -DSWITCHBACK_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo "${launcher[@]}" &&
  ninja -C "$folder" "${targets[@]/%/_fuzz}"; } >"$folder/build.log" 2>&1; then
  tail -n 30 "$folder/build.log"
  echo "0 passed, 1 failed"
  exit 1
fi

one() { # TARGET: runs it; says what it found
  local target=$1 runs
  mkdir -p "$folder/corpus/$target"
  if (cd "$folder" && "fuzz/${target}_fuzz" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$folder/$target-" "corpus/$target" "$top/tests/fuzz/corpus/$target") >"$folder/$target.log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder/$target.log")
    printf 'ok   %-10s %12s inputs\n' "$target" "$runs"
  else
    printf 'FAIL %s, see %s\n' "$target" "$folder/$target.log"
    tail -n 40 "$folder/$target.log" | sed 's/^/     | /'
    return 1
  fi
}
export -f one
export folder seconds top
passed=0 failed=0
output=$(printf '%s\n' "${targets[@]}" | xargs -P "${SWITCHBACK_JOBS:-$(nproc)}" -I{} bash -c 'one {}' || true)
echo "$output"
passed=$(grep -c '^ok ' <<<"$output" || true)
failed=$((${#targets[@]} - passed))
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
