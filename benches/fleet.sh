#!/usr/bin/env bash
# Measures a fleet on one machine: workers, RabbitMQ, and Redis with `appendfsync always`, against a bare
# sink. Messages a second with one and with two workers, and Redis' memory a message.
#
# Needs redis-server and rabbitmq-server (Debian); starts private instances and ends them.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${1:-300000}
cargo build --profile dist --bin flowcast --examples
bin=$PWD/target/dist
folder=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill -TERM -- "-$pid" 2>/dev/null || kill "$pid" 2>/dev/null || true; done
    sleep 2
    for pid in "${pids[@]}"; do kill -KILL -- "-$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap cleanup EXIT

setsid "$bin/examples/sink" 127.0.0.1:8026 & pids+=($!)
setsid redis-server --port 6399 --bind 127.0.0.1 --save "" --appendonly yes --appendfsync always \
    --maxmemory-policy noeviction --dir "$folder" > "$folder/redis.log" & pids+=($!)
export HOME=$folder RABBITMQ_NODENAME=bench@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=5699 \
    RABBITMQ_DIST_PORT=5700 ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=5701 RABBITMQ_MNESIA_BASE=$folder/mnesia \
    RABBITMQ_LOG_BASE=$folder/log RABBITMQ_ENABLED_PLUGINS_FILE=$folder/plugins RABBITMQ_PID_FILE=$folder/pid
echo '[].' > "$folder/plugins"
setsid epmd -address 127.0.0.1 -port 5701 & pids+=($!)
setsid /usr/lib/rabbitmq/bin/rabbitmq-server > "$folder/rabbitmq.log" 2>&1 & pids+=($!)

cat > "$folder/flowcast.toml" <<TOML
[amqp]
url = "amqp://guest:guest@127.0.0.1:5699/%2f"
[redis]
url = "redis://127.0.0.1:6399/0"
[audiences]
root = "."
[http]
listen = "127.0.0.1:0"
[accounts.main]
provider = "exotel"
base_url = "http://127.0.0.1:8026"
account_sid = "bench"
api_key = "key"
api_token = "token"
limits = { requests = "1000000/s", messages = "100000000/s" }
concurrency = 16
TOML
"$bin/examples/generate" "$rows" > "$folder/customers.csv"
cd "$folder"
export FLOWCAST_LOG=error
until "$bin/flowcast" doctor > doctor.txt 2>/dev/null; do sleep 0.5; done

memory() { redis-cli -p 6399 INFO memory | sed -n 's/^used_memory:\([0-9]*\).*/\1/p'; }
echo "machine: $(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), $(uname -sr)"
for workers in 1 2; do
    id=fleet-$workers
    sed -e "s/\"appointment-demo\"/\"$id\"/" -e '/"limits"/d' -e 's/"custom_data": \(.*\),$/"custom_data": \1/' \
        "$OLDPWD/fixtures/jobs/appointment.json" > job.json
    before=$(memory)
    started=()
    for _ in $(seq $workers); do setsid "$bin/flowcast" worker 2>> worker.log & pids+=($!); started+=($!); done
    "$bin/flowcast" submit job.json > /dev/null
    start=$(date +%s.%N)
    until "$bin/flowcast" status $id --json 2>/dev/null | grep -q '"state":"completed"'; do sleep 0.1; done
    end=$(date +%s.%N)
    "$bin/flowcast" status $id --json > status.json
    used=$(( $(memory) - before ))
    awk -v workers=$workers -v rows="$rows" -v start="$start" -v end="$end" -v used="$used" 'BEGIN {
        printf "%d workers, %d rows: %6.2f s, %7.0f rows/s, Redis %5.1f bytes a row\n", workers, rows, end - start, rows / (end - start), used / rows
    }'
    for pid in "${started[@]}"; do kill -TERM "$pid"; done
    for pid in "${started[@]}"; do wait "$pid" || true; done
done
