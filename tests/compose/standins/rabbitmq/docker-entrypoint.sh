#!/bin/sh
# Runs the server as its own user, on a volume that may have come as root's.
set -eu
for name in RABBITMQ_DEFAULT_PASS_FILE RABBITMQ_DEFAULT_USER_FILE RABBITMQ_VM_MEMORY_HIGH_WATERMARK; do
    # The official image refuses them too.
    if printenv "$name" > /dev/null; then
        echo "error: $name is set but no longer supported" >&2
        exit 1
    fi
done
if [ "$1" = rabbitmq-server ] && [ "$(id -u)" = 0 ]; then
    find /var/lib/rabbitmq ! -user rabbitmq -exec chown rabbitmq {} +
    exec setpriv --reuid rabbitmq --regid rabbitmq --init-groups "$0" "$@"
fi
exec "$@"
