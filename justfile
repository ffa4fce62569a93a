# One recipe for each common task. `just` lists them.

_default:
    @just --list

# Build everything with optimisations
build:
    cargo build --release

# Run the tests
test *ARGS:
    ./scripts/test {{ARGS}}

# Run the checks that decide whether a change is merged
ci:
    ./.ci/run

# Run the tests at full size, after changes to the engine and before a release; PARTS are the names in scripts/nightly
nightly *PARTS:
    ./scripts/nightly {{PARTS}}

# Run the integration tests on RabbitMQ 4, Redis 8 and Valkey 8 from Debian 13; needs root
matrix *FILTERS:
    ./scripts/matrix {{FILTERS}}

# Format and lint
lint:
    cargo fmt
    cargo clippy --all-targets -- -D warnings

# Accept changed snapshots; read them first
snapshots:
    INSTA_UPDATE=always cargo test

# Fuzz a parser (cargo install cargo-fuzz); the targets are in fuzz/targets.rs: jobs, csv, answers, callbacks, configuration and more
fuzz TARGET="callbacks" SECONDS="60":
    cd fuzz && mkdir -p found/{{TARGET}} && RUSTC_BOOTSTRAP=1 cargo fuzz run -s none {{TARGET}} found/{{TARGET}} corpus/{{TARGET}} -- -max_total_time={{SECONDS}} -max_len=8192

# Generate docs/reference/codes.md after a change of the table
codes:
    cargo run -- explain --markdown > docs/reference/codes.md

# Build a book of the documents in target/book (cargo install mdbook)
book:
    mdbook build

# Measure rendering and reading, then `flowcast run` against a bare sink
bench:
    cargo bench --bench parts
    ./benches/whole.sh

# Compare a fleet with self-written programs (benches/peers): rate, CPU and memory per message
bench-system *ARGS:
    ./benches/system.py {{ARGS}}

# Check the steps of the Dockerfile without Docker
container:
    ./scripts/check-container

# Kill the real binary at random moments
faults KILLS="30":
    FLOWCAST_KILLS={{KILLS}} cargo test --test it faults -- --nocapture

# Kill, freeze and disconnect workers, Redis and RabbitMQ: 200 faults over 100,000 messages
chaos FAULTS="200" ROWS="100000":
    FLOWCAST_CHAOS_FAULTS={{FAULTS}} FLOWCAST_CHAOS_ROWS={{ROWS}} cargo test --test it chaos -- --nocapture

# Make Redis lose its last second of writes, twenty times in a campaign of 40,000 messages
power-loss LOSSES="20":
    FLOWCAST_POWER_LOSSES={{LOSSES}} cargo test --test it power_loss -- --nocapture

# Run SEEDS seeds of the simulation, starting at FROM; prints the history of the first that fails
simulate SEEDS="20000" FROM="0":
    FLOWCAST_SIMULATE={{SEEDS}} FLOWCAST_SIMULATE_FROM={{FROM}} cargo test --release --lib simulation::every_message -- --nocapture

# Fail Redis over 20 times during a campaign, with sentinels and in a cluster
failover COUNT="20":
    FLOWCAST_FAILOVERS={{COUNT}} cargo test --test it failover -- --nocapture

# Kill, freeze and disconnect the nodes of a RabbitMQ cluster of three during a campaign
broker-cluster FAULTS="20":
    FLOWCAST_BROKER_FAULTS={{FAULTS}} cargo test --test it broker_cluster -- --nocapture

# Run mixed campaigns with reports and one fault per minute for an hour; resources must not grow
soak SECONDS="3600":
    FLOWCAST_SOAK_SECONDS={{SECONDS}} cargo test --test it soak -- --nocapture

# Measure Redis' memory per message, at a million messages
memory:
    FLOWCAST_TEST_BATCHES=10000 cargo test --test it compact_encoding -- --nocapture

# Run the main job in the sandbox
demo:
    cargo run -- run fixtures/jobs/appointment.json --sandbox

# Generate an audience of N rows for the fixture jobs
audience N:
    cargo run --release --example generate -- {{N}}
