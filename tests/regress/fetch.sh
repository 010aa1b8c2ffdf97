#!/usr/bin/env bash
# PostgreSQL's own tests, for running them through the proxy: fetches the source package of the server that is
# installed, compiles what Debian doesn't ship (regress.so and its two helpers, libpq_pipeline), and keeps sources and
# programs in a cache folder, whose name it prints.
#
# The source comes by deb-src lists of our own, made of the machine's deb lists of Debian, which stay as they are. If the
# very version of the server is not to be had, another minor version of the same major version does. psql and
# pg_regress are of the tests' version, too: what they make of the tests' scripts differs between minor versions.
set -euo pipefail
# shellcheck source=tests/packages.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/../packages.sh"

bin=$(postgres_old)
major=$("$bin/postgres" --version | grep -oE '[0-9]+' | head -n 1)
if [ "$(id -u)" = 0 ]; then cache=/var/cache/switchback; else cache=${XDG_CACHE_HOME:-$HOME/.cache}/switchback; fi
cache=${SWITCHBACK_CACHE:-$cache}/postgresql-$major-tests
if [ -e "$cache/complete" ]; then
  echo "$cache"
  exit 0
fi
# shellcheck disable=SC2086 # lists of words
packages_install $PACKAGES_BUILD $PACKAGES_REGRESS >&2

mkdir -p "$(dirname "$cache")" && chmod 755 "$(dirname "$cache")"
work=$(mktemp -d "$cache.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"

# --- the sources, by a list of our own

mkdir -p apt/lists/partial apt/archives/partial apt/sources unpack
for list in /etc/apt/sources.list.d/*.sources; do
  if grep -q '^URIs:.*debian' "$list" 2>/dev/null; then sed 's/^Types:.*/Types: deb-src/' "$list" >"apt/sources/$(basename "$list")"; fi
done
{ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || true; } | sed -n '/^deb .*debian/s/^deb /deb-src /p' >apt/sources/lines.list
options=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$work/apt/sources" -o "Dir::State::lists=$work/apt/lists"
  -o "Dir::Cache=$work/apt" -o APT::Sandbox::User=)
apt-get "${options[@]}" update >apt/log 2>&1 || {
  tail -n 5 apt/log >&2
  exit 1
}
installed=$(dpkg-query -W -f '${source:Version}' "postgresql-$major")
others=$(apt-cache "${options[@]}" showsrc "postgresql-$major" | sed -n 's/^Version: //p' | grep -vxF "$installed" | sort -rV || true)
for version in "$installed" $others; do
  if (cd unpack && apt-get "${options[@]}" --download-only source "postgresql-$major=$version") >>apt/log 2>&1; then break; fi
  echo "postgresql-$major $version is not to be had" >&2
  version=
done
[ -n "$version" ] || {
  tail -n 5 apt/log >&2
  exit 1
}
folder=postgresql-${version%-*}
tar -C unpack --no-same-owner -xf unpack/postgresql-*.orig.tar.* --wildcards --strip-components 1 '*/src/test/regress' '*/src/test/isolation' \
  '*/src/test/modules/libpq_pipeline' '*/contrib/spi'

# --- psql, pg_regress and isolationtester; the server's headers, without what their package depends on

(cd apt && apt-get download "postgresql-server-dev-$major" "postgresql-client-$major=$version" >>log 2>&1) || {
  tail -n 5 apt/log >&2
  exit 1
}
dpkg-deb -x apt/postgresql-server-dev-*.deb headers
dpkg-deb -x apt/postgresql-client-*.deb client
include=$(echo headers/usr/include/postgresql/*/server)

# --- build

mkdir lib
for name in src/test/regress/regress contrib/spi/refint contrib/spi/autoinc; do
  gcc -O2 -fPIC -shared -fno-strict-aliasing -fwrapv -DREFINT_VERBOSE -I "$include" -o "lib/$(basename "$name").so" "unpack/$name.c"
done
gcc -O2 -I "$include" -I /usr/include/postgresql/internal -I /usr/include/postgresql -o lib/libpq_pipeline \
  unpack/src/test/modules/libpq_pipeline/libpq_pipeline.c -L"$(echo headers/usr/lib/postgresql/*/lib)" -lpq -lpgcommon -lpgport
programs=client/usr/lib/postgresql/$major
mkdir bin
mv "$programs/bin/psql" "$programs"/lib/pgxs/src/test/*/{pg_regress,pg_isolation_regress,isolationtester} bin/ 2>/dev/null || true
for program in psql pg_regress pg_isolation_regress isolationtester; do
  [ -x "bin/$program" ] || {
    echo "Debian's postgresql-client-$major has no $program" >&2
    exit 1
  }
done
mv unpack/src/test/regress regress
mv unpack/src/test/isolation isolation
mv unpack/src/test/modules/libpq_pipeline pipeline
rm -rf unpack headers client apt
echo "$folder" >complete
chmod -R go-w,a+rX .
cd /
rm -rf "$cache"
mv "$work" "$cache"
trap - EXIT
echo "$cache"
