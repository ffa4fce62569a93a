"""The Celery application: one task per batch. See ../README.md."""

import os
import sys
from pathlib import Path

import orjson
import redis
import requests
from celery import Celery
from kombu import Queue

sys.path.insert(0, str(Path(__file__).parent.parent))
from message import message, outcomes

app = Celery("peer", broker=os.environ["AMQP_URL"])
app.conf.update(
    task_queues=[Queue("peer.tasks", queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue="peer.tasks",
    task_default_delivery_mode="persistent",
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=8,
    worker_enable_remote_control=False,
    broker_transport_options={"confirm_publish": True},
)
store = redis.from_url(os.environ["REDIS_URL"])
session = requests.Session()


@app.task
def send(number, rows):
    body = orjson.dumps({"whatsapp": {"messages": [message(*row) for row in rows]}})
    headers = {"content-type": "application/json"}
    answer = session.post(os.environ["SINK_URL"], data=body, headers=headers)
    pipe = store.pipeline(transaction=False)
    pipe.hset(f"peer:batch:{number}", mapping=outcomes(rows, orjson.loads(answer.content)))
    pipe.hincrby("peer:campaign", "settled", len(rows))
    pipe.execute()
