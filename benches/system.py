#!/usr/bin/env python3
"""Compares a fleet of one worker with self-written programs, in turns on this machine, with RabbitMQ, Redis with
`appendfsync always`, a bare sink and no limits.

    benches/system.py [--rows N] [--rounds N] [--only NAME,...] [--binary NAME=PATH ...] [--work WORK]

Prints messages per second and CPU per message for each, the median of the rounds, and the machine. The work is:

- `batches`: a hundred messages per request
- `single`: one message per request, as for Kaleyra; only flowcast
- `reports`: two reports per message to flowcast, each on disk before the response
- `pages`: as `batches`, flowcast without and with 200 live pages of the campaign, in turns
- `replicas`: as `batches`, on a Redis with a replica, without and with claims that wait for it
- `answers`: as `batches`, without and with the index of recipients

Needs redis-server, rabbitmq-server, node with npm, and python3 with venv (all in Debian); the dependencies of the peers
are installed below target/peers. `--binary` adds another build of flowcast.
"""

import argparse
import json
import os
import platform
import resource
import selectors
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benches" / "peers"
BUILT = ROOT / "target" / "peers"
AMQP = "amqp://guest:guest@127.0.0.1:5699/%2f"
REDIS = "redis://127.0.0.1:6399/0"
SINK = "http://127.0.0.1:8026/v2/accounts/bench/messages"
PAGES = 200
PUBLIC = {"[http]": 'public_url = "http://127.0.0.1:8031"'}
# Configurations of flowcast that are compared: a line for each section.
VARIANTS = {
    "replicas": {f"flowcast, replicas = {count}": {"[redis]": f"replicas = {count}"} for count in [0, 1]},
    "answers": {
        f"flowcast, answers_within = {within}": PUBLIC | {"[accounts.main]": f'answers_within = "{within}"'}
        for within in ["0s", "72h"]
    },
}
TICKS = os.sysconf("SC_CLK_TCK")
CONFIG = f"""
[amqp]
url = "{AMQP}"
[redis]
url = "{REDIS}"
[audiences]
root = "."
[http]
listen = "127.0.0.1:8031"
[accounts.main]
provider = "exotel"
base_url = "http://127.0.0.1:8026"
account_sid = "bench"
api_key = "key"
api_token = "token"
limits = {{ requests = "1000000/s", messages = "100000000/s" }}
concurrency = 64
[accounts.single]
provider = "kaleyra"
base_url = "http://127.0.0.1:8026"
account_sid = "bench"
api_key = "key"
limits = {{ requests = "1000000/s", messages = "100000000/s" }}
concurrency = 256
"""


class Machine:
    """The servers of one measurement."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []
        self.pids = {}
        self.connection = None

    def start(self, name, command, **more):
        log = open(self.folder / f"{name}.log", "w")
        more.setdefault("cwd", self.folder)
        child = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, **more)
        self.started.append(child)
        self.pids[name] = child.pid
        return child

    def up(self, reports=False, replica=False):
        addresses = [self.folder / "addresses"] if reports else []
        self.start("sink", [ROOT / "target/dist/examples/sink", "127.0.0.1:8026", *addresses])
        redis = "redis-server --port 6399 --bind 127.0.0.1 --appendonly yes --appendfsync always"
        self.start("redis", [*redis.split(), "--save", "", "--dir", str(self.folder)])
        if replica:
            (self.folder / "replica").mkdir()
            follow = redis.replace("6399", "6398") + " --repl-diskless-sync-delay 0 --replicaof 127.0.0.1 6399"
            self.start("replica", [*follow.split(), "--save", "", "--dir", str(self.folder / "replica")])
        env = dict(
            os.environ,
            HOME=str(self.folder),
            RABBITMQ_NODENAME="bench@localhost",
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT="5699",
            RABBITMQ_DIST_PORT="5700",
            ERL_EPMD_ADDRESS="127.0.0.1",
            ERL_EPMD_PORT="5701",
            RABBITMQ_MNESIA_BASE=str(self.folder / "mnesia"),
            RABBITMQ_LOG_BASE=str(self.folder / "log"),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(self.folder / "plugins"),
            RABBITMQ_PID_FILE=str(self.folder / "rabbitmq.pid"),
        )
        (self.folder / "plugins").write_text("[].\n")
        self.start("epmd", ["epmd", "-address", "127.0.0.1", "-port", "5701"])
        self.start("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], env=env)
        self.wait_for(5699)

        self.pids["rabbitmq"] = int((self.folder / "rabbitmq.pid").read_text())

    def wait_for(self, port):
        """Waits until RabbitMQ accepts connections."""
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as connection:
                    connection.sendall(b"AMQP\0\0\x09\x01")
                    connection.settimeout(5)
                    if connection.recv(1):
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                sys.exit(f"RabbitMQ did not start; see {self.folder}/rabbitmq.log")
            time.sleep(0.2)

    def cpu(self, name):
        """Returns the CPU time that a server has used, in seconds."""
        fields = Path(f"/proc/{self.pids[name]}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def redis(self, *command):
        """Sends a command to Redis over one connection: a process per command would be part of the measurement."""
        if self.connection is None:
            self.connection = socket.create_connection(("127.0.0.1", 6399)).makefile("rwb")
        parts = [f"*{len(command)}", *(line for part in command for line in (f"${len(part)}", part))]
        self.connection.write(("\r\n".join(parts) + "\r\n").encode())
        self.connection.flush()
        first = self.connection.readline().decode().strip()
        if first[0] == "-":
            sys.exit(f"Redis: {first}")
        if first[0] != "$":
            return first[1:]
        return self.connection.read(int(first[1:]) + 2).decode() if first != "$-1" else ""

    def down(self):
        for child in reversed(self.started):
            try:
                os.killpg(child.pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
        time.sleep(2)
        for child in self.started:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def audience(path, rows):
    with open(path, "w") as file:
        file.write("phone,name,clinic\n")
        for row in range(rows):
            file.write(f"+91{9_800_000_000 + row},Asha Rao {row},Lake Road\n")


def peers():
    """Builds the peers and returns their commands."""
    BUILT.mkdir(parents=True, exist_ok=True)
    env = dict(os.environ, CARGO_TARGET_DIR=str(BUILT / "plain"))
    subprocess.run(["cargo", "build", "-q", "--release"], cwd=PEERS / "plain", env=env, check=True)
    node = BUILT / "node"
    shutil.copytree(PEERS / "node", node, dirs_exist_ok=True)
    subprocess.run(["npm", "install", "--silent", "--no-fund", "--no-audit"], cwd=node, check=True)
    commands = {
        "plain Rust": [BUILT / "plain/release/peer"],
        "Node": ["node", node / "peer.js"],
    }
    for name in ["asyncio", "celery"]:
        venv = BUILT / name
        if not (venv / "bin/python").exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        install = [venv / "bin/pip", "install", "-q", "-r", PEERS / name / "requirements.txt"]
        subprocess.run(install, check=True)
        commands["Celery" if name == "celery" else name] = [venv / "bin/python", PEERS / name / "peer.py"]
    return commands


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_peer(machine, command, path):
    env = dict(os.environ, AMQP_URL=AMQP.replace("%2f", "%2F"), REDIS_URL=REDIS, SINK_URL=SINK)
    began = time.monotonic()
    subprocess.run([*map(str, command), str(path)], env=env, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


class Pages:
    """Live pages of a campaign, which a thread reads until they are closed."""

    def __init__(self, id, count):
        self.selector = selectors.DefaultSelector()
        self.bytes = 0
        self.open = True
        ask = f"GET /campaigns/{id}/live HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: text/event-stream\r\n\r\n"
        for _ in range(count):
            page = socket.create_connection(("127.0.0.1", 8031))
            page.sendall(ask.encode())
            answer = page.recv(65536)
            if b" 200 OK" not in answer:
                sys.exit(f"a page answers {answer[:300]}")
            self.selector.register(page, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.read)
        self.thread.start()

    def read(self):
        # Browsers run on other machines, so the CPU time of this reader must not count.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while self.open:
            for key, _ in self.selector.select(0.1):
                self.bytes += len(key.fileobj.recv(1 << 20))

    def close(self):
        self.open = False
        self.thread.join()
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()
        return self.bytes


def run_flowcast(machine, binary, path, id, work, pages, settings):
    folder, config = machine.folder, CONFIG
    for section, line in settings.items():
        config = config.replace(section, f"{section}\n{line}")
    (folder / "flowcast.toml").write_text(config)
    job = json.loads((ROOT / "fixtures/jobs/appointment.json").read_text())
    job["id"] = id
    job["account"] = "single" if work == "single" else "main"
    job["audience"] = {"csv": {"path": path.name}}
    del job["limits"], job["custom_data"]
    (folder / "job.json").write_text(json.dumps(job))
    env = dict(os.environ, FLOWCAST_LOG="error")
    (folder / "addresses").write_text("")
    with open(folder / "worker.log", "a") as log:
        worker = subprocess.Popen([binary, "worker"], cwd=folder, env=env, stderr=log)
    time.sleep(1.5)
    began = time.monotonic()
    subprocess.run([binary, "submit", "job.json"], cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)
    state = lambda: machine.redis("HGET", f"flowcast:{{{id}}}:campaign", "state").strip()
    while pages and not state():
        time.sleep(0.01)
    seen = Pages(id, pages) if pages else None
    while state() != "completed":
        time.sleep(0.05)
    took = time.monotonic() - began
    if seen:
        print(f"{pages} pages read {seen.close():,} bytes", file=sys.stderr)
    if work == "reports":
        before = {server: machine.cpu(server) for server in ["redis", "rabbitmq"]}
        machine.pids["worker"], at = worker.pid, 0
        at = machine.cpu("worker")
        reporter = ROOT / "target/dist/examples/reporter"
        done = subprocess.run([reporter, folder / "addresses"], capture_output=True, text=True, check=True)
        used = {"worker": machine.cpu("worker") - at}
        used.update((server, machine.cpu(server) - seconds) for server, seconds in before.items())
        count = int(done.stdout.split()[0])
        micros = ", ".join(f"{name} {seconds / count * 1e6:.1f} µs" for name, seconds in used.items())
        print(f"{done.stdout.strip()}; a report: {micros}")
    peak = Path(f"/proc/{worker.pid}/status").read_text().split("VmHWM:")[1].split()[0]
    worker.terminate()
    worker.wait()
    return took, int(peak) / 1024


def measure(machine, name, command, path, rows, round, work="batches"):
    machine.redis("FLUSHALL")
    before = {server: machine.cpu(server) for server in ["redis", "rabbitmq", "sink"]}
    memory = lambda: int(machine.redis("INFO", "memory").split("used_memory:")[1].split()[0])
    (at, held), peak = (children(), memory()), None
    if name.startswith("flowcast"):
        pages = PAGES if name.endswith("pages") else 0
        settings = PUBLIC if work == "reports" else VARIANTS.get(work, {}).get(name, {})
        took, peak = run_flowcast(machine, command, path, f"bench-{round}", work, pages, settings)
    else:
        took = run_peer(machine, command, path)
    used = {server: machine.cpu(server) - before[server] for server in before}
    micros = {server: seconds / rows * 1e6 for server, seconds in used.items()}
    micros["program"] = (children() - at) / rows * 1e6
    return {"rate": rows / took, **micros, "peak": peak, "bytes": (memory() - held) / rows}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--work", choices=["batches", "single", "reports", "pages", *VARIANTS], default="batches")
    parser.add_argument("--binary", action="append", default=[])
    asked = parser.parse_args()
    build = ["cargo", "build", "-q", "--profile", "dist", "--bin", "flowcast", "--examples"]
    subprocess.run(build, cwd=ROOT, check=True)
    commands = {"flowcast": ROOT / "target/dist/flowcast"}
    commands.update((f"flowcast {name}", Path(path).resolve()) for name, path in (b.split("=") for b in asked.binary))
    if asked.work == "batches":
        commands.update(peers())
    if asked.work in VARIANTS:
        binary = commands.pop("flowcast")
        commands = {name: binary for name in VARIANTS[asked.work]}
    if asked.work == "pages":
        commands[f"flowcast with {PAGES} pages"] = commands["flowcast"]
    wanted = [name for name in asked.only.split(",") if name]
    commands = {name: command for name, command in commands.items() if not wanted or name in wanted}
    machine = Machine(Path(tempfile.mkdtemp()))
    results = {name: [] for name in commands}
    try:
        machine.up(reports=asked.work == "reports", replica=asked.work == "replicas")
        path = machine.folder / "customers.csv"
        audience(path, asked.rows)
        for round in range(asked.rounds):
            for name, command in commands.items():
                result = measure(machine, name, command, path, asked.rows, round, asked.work)
                results[name].append(result)
                print(f"round {round + 1}, {name}: {result['rate']:,.0f}/s", file=sys.stderr)
    finally:
        machine.down()
        shutil.rmtree(machine.folder, ignore_errors=True)
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "?")
    print(f"{os.cpu_count()} cores, {model}, {platform.system()} {platform.release()}; {asked.rows:,} messages,")
    print(f"median of {asked.rounds} rounds in turns; flowcast with profile dist\n")
    print("| | messages/s | program µs | Redis µs | RabbitMQ µs | sink µs | Redis bytes | worker MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, rounds in results.items():
        of = lambda key: statistics.median(result[key] for result in rounds)
        peak = f"{of('peak'):.0f}" if rounds[0]["peak"] else ""
        print(
            f"| {name} | {of('rate'):,.0f} | {of('program'):.1f} | {of('redis'):.1f} | {of('rabbitmq'):.1f}"
            f" | {of('sink'):.1f} | {of('bytes'):.0f} | {peak} |"
        )


if __name__ == "__main__":
    main()
