#!/usr/bin/env python3
"""Measures a fleet with many campaigns: the cost of waiting ones, the duration of many small ones, and the time from
the publication of a job to its first request. Uses RabbitMQ, Redis with `appendfsync always` and two workers, all on
this machine.

    benches/many.py waiting [--campaigns N]
    benches/many.py small [--campaigns N]
    benches/many.py first-request [--jobs N]

Needs redis-server, rabbitmq-server and python3-pika (all in Debian); `--binary PATH` measures another build.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.append("/usr/lib/python3/dist-packages")

import pika  # noqa: E402

from system import AMQP, CONFIG, ROOT, Machine  # noqa: E402


def job(id, number, start_at=None):
    job = {
        "version": 1,
        "id": id,
        "account": "main",
        "from": "+912248931479",
        "audience": {"recipients": [{"phone": f"+91{9_800_000_000 + number}"}]},
        "message": {"type": "text", "text": {"body": "Good morning"}},
    }
    if start_at:
        job["schedule"] = {"start_at": start_at}
    return json.dumps(job)


class Fleet:
    """Servers and workers, and a channel to publish jobs on."""

    def __init__(self, binary, workers):
        self.machine = Machine(Path(tempfile.mkdtemp()))
        self.machine.up()
        (self.machine.folder / "flowcast.toml").write_text(CONFIG)
        for nth in range(workers):
            command = [binary, "worker"]
            self.machine.start(f"worker{nth}", command, cwd=self.machine.folder)
        self.workers = [f"worker{nth}" for nth in range(workers)]
        # The first worker declares the job queue.
        deadline = time.monotonic() + 30
        while True:
            try:
                connection = pika.BlockingConnection(pika.URLParameters(AMQP.replace("%2f", "%2F")))
                self.channel = connection.channel()
                self.channel.queue_declare("flowcast.jobs", passive=True)
                break
            except pika.exceptions.AMQPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        self.channel.confirm_delivery()

    def publish(self, document):
        properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
        self.channel.basic_publish("", "flowcast.jobs", document, properties, mandatory=True)

    def commands(self):
        return int(self.machine.redis("INFO", "stats").split("total_commands_processed:")[1].split()[0])

    def memory(self, worker):
        status = Path(f"/proc/{self.machine.pids[worker]}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def down(self):
        self.machine.down()
        shutil.rmtree(self.machine.folder, ignore_errors=True)


def waiting(fleet, campaigns):
    start = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
    for number in range(campaigns):
        fleet.publish(job(f"waits-{number}", number, start))
    while int(fleet.machine.redis("ZCARD", "flowcast:campaigns")) < campaigns:
        time.sleep(0.2)
    time.sleep(20)
    names = [*fleet.workers, "redis", "rabbitmq"]
    cpu = {name: fleet.machine.cpu(name) for name in names}
    commands, began = fleet.commands(), time.monotonic()
    time.sleep(60)
    span = time.monotonic() - began
    rate = (fleet.commands() - commands) / span
    used = ", ".join(f"{name} {(fleet.machine.cpu(name) - cpu[name]) / span:.2%}" for name in names)
    print(f"{campaigns} campaigns wait: {rate:.0f} Redis commands a second; of a core: {used}")


def small(fleet, campaigns):
    began = time.monotonic()
    for number in range(campaigns):
        fleet.publish(job(f"small-{number}", number))
    left = [f"flowcast:{{small-{number}}}:campaign" for number in range(campaigns)]
    while left:
        left = [key for key in left if fleet.machine.redis("HGET", key, "state").strip() != "completed"]
        time.sleep(0.05)
    took = time.monotonic() - began
    peak = max(fleet.memory(worker) for worker in fleet.workers)
    time.sleep(60)
    after = max(fleet.memory(worker) for worker in fleet.workers)
    print(f"{campaigns} campaigns of one message: {took:.1f} s; {peak:.0f} MiB in a worker, {after:.0f} a minute later")


def provider():
    """A provider that accepts everything; returns the time of the first request of each campaign."""
    arrived = {}

    class Provider(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            now = time.monotonic()
            messages = json.loads(body)["whatsapp"]["messages"]
            arrived.setdefault(messages[0]["custom_data"].split(".")[0], now)
            entry = {"code": 202, "error_data": None, "status": "success", "data": {"sid": "s"}}
            answer = json.dumps({"response": {"whatsapp": {"messages": [entry] * len(messages)}}}).encode()
            self.send_response(202)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", 8027), Provider).serve_forever, daemon=True).start()
    return arrived


def first_request(fleet, arrived, jobs, rows):
    with open(fleet.machine.folder / "customers.csv", "w") as file:
        file.write("phone\n" + "".join(f"+91{9_800_000_000 + row}\n" for row in range(rows)))
    waits = []
    for number in range(jobs):
        id = f"job-{rows}-{number}"
        document = json.loads(job(id, number))
        if rows > 1:
            document["audience"] = {"csv": {"path": "customers.csv"}}
        began = time.monotonic()
        fleet.publish(json.dumps(document))
        while id not in arrived:
            time.sleep(0.001)
        waits.append((arrived[id] - began) * 1000)
        while fleet.machine.redis("HGET", f"flowcast:{{{id}}}:campaign", "state").strip() != "completed":
            time.sleep(0.01)
    waits.sort()
    at = lambda share: waits[min(len(waits) - 1, int(share * len(waits)))]
    median = statistics.median(waits)
    print(f"{jobs} jobs of {rows} rows, publish to first request: {median:.0f} ms, p90 {at(0.9):.0f} ms, p99 {at(0.99):.0f} ms, most {waits[-1]:.0f} ms")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["waiting", "small", "first-request"])
    parser.add_argument("--campaigns", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/dist/flowcast")
    asked = parser.parse_args()
    global CONFIG
    if asked.what == "first-request":
        CONFIG = CONFIG.replace("127.0.0.1:8026", "127.0.0.1:8027")
    fleet = Fleet(asked.binary.resolve(), 2 if asked.what == "waiting" else 1)
    try:
        if asked.what == "waiting":
            waiting(fleet, asked.campaigns)
        elif asked.what == "small":
            small(fleet, asked.campaigns)
        else:
            arrived = provider()
            for rows in [1, 1000]:
                first_request(fleet, arrived, asked.jobs, rows)
    finally:
        fleet.down()


main()
