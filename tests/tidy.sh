#!/usr/bin/env bash
# clang-tidy over the source, one file a process (its analyzer confuses va_lists between files). Too slow for every run
# of tests/run.sh, which checks the format alone.
#
#   tests/tidy.sh [FILE...]    the files named, or all
#
# Ends with `N passed, N failed`. SWITCHBACK_BUILD_DIR: a folder to configure in (default build-tidy).
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
# shellcheck source=tests/packages.sh
. tests/packages.sh
# shellcheck disable=SC2086 # lists of words
packages_install $PACKAGES_BUILD $PACKAGES_CHECK clang-tidy

folder=${SWITCHBACK_BUILD_DIR:-build-tidy}
cmake -S . -B "$folder" -G Ninja -DCMAKE_BUILD_TYPE=Debug >/dev/null
# what the simulator compiles once more would be read twice in one process: the same confusion
/usr/bin/python3 - "$folder/compile_commands.json" <<'EOF'
import json, sys
with open(sys.argv[1]) as file:
    once = {command["file"]: command for command in reversed(json.load(file))}
with open(sys.argv[1], "w") as file:
    json.dump(list(once.values()), file)
EOF
if [ $# = 0 ]; then
  mapfile -t files < <(git ls-files 'conf/*.c' 'proxy/*.c' 'replication/*.c' 'control/*.c')
else
  files=("$@")
fi
failed=$(mktemp)
trap 'rm -f "$failed"' EXIT
export folder failed
printf '%s\0' "${files[@]}" |
  xargs -0 -P "$(nproc)" -n 1 bash -c 'clang-tidy -p "$folder" --quiet "$0" 2>/dev/null || echo "$0" >>"$failed"'
echo "$((${#files[@]} - $(wc -l <"$failed"))) passed, $(wc -l <"$failed") failed"
[ ! -s "$failed" ]
