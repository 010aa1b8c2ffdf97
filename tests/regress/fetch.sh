#!/usr/bin/env bash
# PostgreSQL's own tests, for running them through the proxy: fetches the source package of the server that is
# installed, compiles what Debian doesn't ship (regress.so and its two helpers, libpq_pipeline), and keeps sources and
# programs in a cache folder, whose name it prints.
#
# The source comes by a deb-src list of our own (bookworm of deb.debian.org, or $SWITCHBACK_DEB_SRC: URIs, separated by
# spaces, in place of it), so the machine's lists stay as they are. If the very version of the server is not to be had,
# another minor version of the same major version does. psql and pg_regress are of the tests' version, too: what they
# make of the tests' scripts differs between minor versions.
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

mkdir -p apt/lists/partial apt/archives/partial unpack
for uri in ${SWITCHBACK_DEB_SRC:-http://deb.debian.org/debian http://deb.debian.org/debian-security}; do
  suites="bookworm bookworm-updates"
  [ "${uri%-security}" = "$uri" ] || suites=bookworm-security
  printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n' \
    "$uri" "$suites" >>apt/debian.sources
done
options=(-o "Dir::Etc::sourcelist=$work/apt/debian.sources" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/apt/lists"
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
