"""Starts a Celery worker, submits one task per batch, and waits until all messages are recorded."""

import csv
import subprocess
import sys
import time
from pathlib import Path

from tasks import send, store

worker = subprocess.Popen(
    [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--concurrency", "4", "--loglevel", "ERROR",
     "--without-gossip", "--without-mingle", "--without-heartbeat"],
    cwd=Path(__file__).parent,
)
store.delete("peer:campaign")
rows, number, count = [], 0, 0
with open(sys.argv[1], newline="") as file:
    reader = csv.reader(file)
    next(reader)
    for row in reader:
        rows.append(row)
        count += 1
        if len(rows) == 100:
            send.delay(number, rows)
            rows, number = [], number + 1
if rows:
    send.delay(number, rows)
while int(store.hget("peer:campaign", "settled") or 0) < count:
    time.sleep(0.02)
worker.terminate()
worker.wait()
