#!/bin/sh
# Starts RabbitMQ with the secrets that Docker hands in as files: the image takes them only from the environment or from
# its own folder, and in the environment of a container everybody who may list containers reads them.
set -eu
RABBITMQ_DEFAULT_PASS=$(cat /run/secrets/broker_password)
export RABBITMQ_DEFAULT_PASS
if [ -e /run/secrets/erlang_cookie ]; then
    install -o rabbitmq -g rabbitmq -m 400 /run/secrets/erlang_cookie /var/lib/rabbitmq/.erlang.cookie
fi
exec docker-entrypoint.sh rabbitmq-server
