#!/bin/sh
# Fills the templates in with the environment, of which they may name what is set, and runs the command.
set -eu
if [ "$1" = nginx ]; then
    templates=${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}
    suffix=${NGINX_ENVSUBST_TEMPLATE_SUFFIX:-.template}
    output=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}
    names=$(env | cut -d= -f1 | grep "${NGINX_ENVSUBST_FILTER:-}" | sed 's/.*/${&}/' || true)
    find "$templates" -follow -type f -name "*$suffix" | while read -r template; do
        name=${template#"$templates"/}
        mkdir -p "$(dirname "$output/$name")"
        envsubst "$names" < "$template" > "$output/${name%"$suffix"}"
    done
    for script in /docker-entrypoint.d/*.sh; do
        [ ! -x "$script" ] || "$script"
    done
fi
exec "$@"
