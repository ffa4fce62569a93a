# The one way to do each common thing. `just` lists them.

_default:
    @just --list

# Build everything, optimised
build:
    cargo build --release

# Pass the tests
test *ARGS:
    ./scripts/test {{ARGS}}

# What decides whether a change lands
ci:
    ./.ci/run

# The tests at full size, after changes of the engine and before a release; PARTS as scripts/nightly names them
nightly *PARTS:
    ./scripts/nightly {{PARTS}}

# The tests from outside on RabbitMQ 4, Redis 8 and Valkey 8 from Debian 13; needs root
matrix *FILTERS:
    ./scripts/matrix {{FILTERS}}

# Format and lint
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# Accept changed snapshots, after reading them
snapshots:
    INSTA_UPDATE=always cargo test

# Feed a reader with what a fuzzer makes up (cargo install cargo-fuzz); targets are those of fuzz/targets.rs: jobs, csv, answers,
# callbacks, configuration
fuzz TARGET="callbacks" SECONDS="60":
    cd fuzz && mkdir -p found/{{TARGET}} && RUSTC_BOOTSTRAP=1 cargo fuzz run -s none {{TARGET}} found/{{TARGET}} corpus/{{TARGET}} -- -max_total_time={{SECONDS}} -max_len=8192

# Write docs/reference/codes.md anew, after a change of the table
codes:
    cargo run -- explain --markdown > docs/reference/codes.md

# Make a book of the documents in target/book (cargo install mdbook)
book:
    mdbook build

# Measure the parts, then the whole against a bare sink
bench:
    cargo bench --bench parts
    ./benches/whole.sh

# A fleet and what people would write themselves (benches/peers), in turns: rates, CPU and memory a message
bench-system *ARGS:
    ./benches/system.py {{ARGS}}

# The Dockerfile's steps, without Docker
container:
    ./scripts/check-container

# Kill the real binary at random moments
faults KILLS="30":
    FLOWCAST_KILLS={{KILLS}} cargo test --test it faults -- --nocapture

# 200 faults over 100,000 messages: workers, Redis and RabbitMQ killed, frozen, cut off
chaos FAULTS="200" ROWS="100000":
    FLOWCAST_CHAOS_FAULTS={{FAULTS}} FLOWCAST_CHAOS_ROWS={{ROWS}} cargo test --test it chaos -- --nocapture

# Redis loses its last second, twenty times in a campaign of 40,000
power-loss LOSSES="20":
    FLOWCAST_POWER_LOSSES={{LOSSES}} cargo test --test it power_loss -- --nocapture

# So many seeds of the simulation, from one on; tells the story of the first that fails
simulate SEEDS="20000" FROM="0":
    FLOWCAST_SIMULATE={{SEEDS}} FLOWCAST_SIMULATE_FROM={{FROM}} cargo test --release --lib simulation::nobody -- --nocapture

# 20 fail-overs of Redis under a campaign: with sentinels, and in a cluster
failover COUNT="20":
    FLOWCAST_FAILOVERS={{COUNT}} cargo test --test it failover -- --nocapture

# Nodes of a RabbitMQ cluster of three killed, frozen and cut off in turns, under a campaign
broker-cluster FAULTS="20":
    FLOWCAST_BROKER_FAULTS={{FAULTS}} cargo test --test it broker_cluster -- --nocapture

# An hour of mixed campaigns with reports and a fault a minute: what is held at the end is what was held before
soak SECONDS="3600":
    FLOWCAST_SOAK_SECONDS={{SECONDS}} cargo test --test it soak -- --nocapture

# Redis' memory a message, at a million messages
memory:
    FLOWCAST_TEST_BATCHES=10000 cargo test --test it compact_encoding -- --nocapture

# The main job, in the sandbox
demo:
    cargo run -- run fixtures/jobs/appointment.json --sandbox

# An audience of N rows for the fixture jobs
audience N:
    cargo run --release --example generate -- {{N}}
