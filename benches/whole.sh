#!/usr/bin/env bash
# Measures `flowcast run` against a bare sink on the same machine, with the full-sync SQLite ledger: messages per second
# and peak memory, at 100,000 and at 1,000,000 rows.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --profile dist --bin flowcast --examples
bin=$PWD/target/dist
folder=$(mktemp -d)
sink=
cleanup() {
    [ -z "$sink" ] || kill "$sink" 2>/dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT
"$bin/examples/sink" 127.0.0.1:8026 &
sink=$!

cat > "$folder/flowcast.toml" <<TOML
[accounts.main]
provider = "exotel"
base_url = "http://127.0.0.1:8026"
account_sid = "bench"
api_key = "key"
api_token = "token"
limits = { requests = "1000000/s", messages = "100000000/s" }
concurrency = 32
TOML

echo "machine: $(nproc) cores, $(grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs), $(uname -sr)"
for rows in 100000 1000000; do
    "$bin/examples/generate" "$rows" > "$folder/customers.csv"
    for round in ${ROUNDS:-1 2 3}; do
        sed -e "s/\"appointment-demo\"/\"bench-$rows-$round\"/" -e '/"limits"/d' -e 's/"custom_data": \(.*\),$/"custom_data": \1/' \
            fixtures/jobs/appointment.json > "$folder/job.json"
        rm -f "$folder"/flowcast.db*
        start=$(date +%s.%N)
        (cd "$folder" && FLOWCAST_LOG=error "$bin/flowcast" run job.json --json) > "$folder/out.json" &
        run=$!
        peak=0
        # The kernel's high-water mark, read until the process exits.
        while mark=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(pgrep -P "$run" -x flowcast || echo "$run")/status" 2>/dev/null) && [ -n "$mark" ]; do
            peak=$mark
            sleep 0.02
        done
        wait "$run"
        end=$(date +%s.%N)
        awk -v rows="$rows" -v start="$start" -v end="$end" -v peak="$peak" 'BEGIN {
            seconds = end - start
            printf "%9d rows: %6.2f s, %8.0f messages/s, peak memory %5.1f MiB\n", rows, seconds, rows / seconds, peak / 1024
        }'
    done
done
