#!/bin/sh
# Replaces the containers of services without an interruption, one service after the other: first there are twice as
# many, and once the new ones are healthy the old ones go. From the project's folder:
#   sh deploy/roll.sh [SERVICE...]
# Where the new ones do not become healthy they go, and the old ones run on.
set -eu

#: Seconds in which new containers must be healthy, and in which old ones must have stopped: AGENT_STOP_GRACE, or more.
HEALTHY=${HEALTHY:-180}
STOP=${STOP:-90}

if docker compose version >/dev/null 2>&1; then compose="docker compose"; else compose=docker-compose; fi

healthy() {  # all of these containers, by the look that the engine takes only every few seconds
    for container in "$@"; do
        look=$(docker inspect -f '{{join (slice .Config.Healthcheck.Test 1) " "}}' "$container")
        docker exec "$container" $look >/dev/null 2>&1 || return 1
    done
}

[ $# -gt 0 ] || set -- recorder agent pusher gateway
for service in "$@"; do
    old=$($compose ps -q "$service")
    count=$(echo "$old" | wc -w)
    [ "$count" -gt 0 ] || { echo "There is no $service to be replaced." >&2; exit 1; }
    $compose up -d --no-deps --no-recreate --scale "$service=$((2 * count))" "$service"
    new=$($compose ps -q "$service" | grep -vxF "$old")
    waited=0
    until healthy $new; do
        if [ $waited -ge $HEALTHY ]; then
            docker logs --tail 20 "$(echo "$new" | head -n 1)" || true
            docker rm -f $new >/dev/null
            echo "The new containers of $service were not healthy within $HEALTHY s; the old ones run on." >&2
            exit 1
        fi
        sleep 1
        waited=$((waited + 1))
    done
    sleep 3  # in which the edge finds the new ones
    docker stop -t "$STOP" $old >/dev/null
    docker rm $old >/dev/null
    echo "$service: $count new"
done
