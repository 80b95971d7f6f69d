#!/bin/bash
# Gives a new data folder its user, password and database, then runs the command as the user postgres.
set -euo pipefail

# The variable's value, or that of the file which <variable>_FILE names.
value() {
    local file="${1}_FILE"
    if [ -n "${!1:-}" ] && [ -n "${!file:-}" ]; then
        echo "error: both $1 and $file are set" >&2
        exit 1
    fi
    if [ -n "${!file:-}" ]; then cat "${!file}"; else echo "${!1:-$2}"; fi
}

new_cluster() {
    local user password database
    user=$(value POSTGRES_USER postgres)
    database=$(value POSTGRES_DB "$user")
    password=$(value POSTGRES_PASSWORD "")
    if [ -z "$password" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
        echo "error: POSTGRES_PASSWORD is not set, without which there is no superuser" >&2
        exit 1
    fi
    # shellcheck disable=SC2086 # several arguments
    initdb --username "$user" --pwfile <(echo "${password:-unused}") --encoding UTF8 ${POSTGRES_INITDB_ARGS:-}
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
    echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >> "$PGDATA/pg_hba.conf"
    # On its socket alone, so that nobody takes it for ready yet.
    pg_ctl start --wait --options "-c listen_addresses=''"
    [ "$database" = postgres ] || createdb --username "$user" "$database"
    for file in /docker-entrypoint-initdb.d/*; do
        case "$file" in
            *.sql) psql --set ON_ERROR_STOP=1 --no-psqlrc --username "$user" --dbname "$database" --file "$file" ;;
            *.sh) bash "$file" ;;
        esac
    done
    pg_ctl stop --wait --mode fast
}

case "${1:-}" in -*) set -- postgres "$@" ;; esac
if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    find /var/lib/postgresql ! -user postgres -exec chown postgres: {} +
    chmod 700 "$PGDATA"
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then new_cluster; fi
exec "$@"
