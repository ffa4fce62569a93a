"""A peer with asyncio: uvloop, aio-pika, aiohttp, orjson, redis.asyncio. See ../README.md."""

import asyncio
import csv
import os
import sys
from pathlib import Path

import aio_pika
import aiohttp
import orjson
import redis.asyncio
import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent))
from message import message, outcomes

CONCURRENCY = 64
QUEUE = "peer.batches"


async def main(path):
    store = redis.asyncio.from_url(os.environ["REDIS_URL"])
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    publishing = await connection.channel(publisher_confirms=True)
    arguments = {"x-queue-type": "quorum"}
    await publishing.declare_queue(QUEUE, durable=True, arguments=arguments)
    consuming = await connection.channel(publisher_confirms=False)
    await consuming.set_qos(prefetch_count=2 * CONCURRENCY)
    queue = await consuming.declare_queue(QUEUE, durable=True, arguments=arguments)
    settled, total, done = 0, None, asyncio.Event()
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)

    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(delivery):
            nonlocal settled
            batch = orjson.loads(delivery.body)
            rows = batch["rows"]
            body = orjson.dumps({"whatsapp": {"messages": [message(*row) for row in rows]}})
            headers = {"content-type": "application/json"}
            async with session.post(os.environ["SINK_URL"], data=body, headers=headers) as answer:
                said = orjson.loads(await answer.read())
            pipe = store.pipeline(transaction=False)
            pipe.hset(f"peer:batch:{batch['number']}", mapping=outcomes(rows, said))
            pipe.hincrby("peer:campaign", "settled", len(rows))
            await pipe.execute()
            await delivery.ack()
            settled += len(rows)
            if settled == total:
                done.set()

        await queue.consume(send)

        async def publish(number, rows):
            body = orjson.dumps({"number": number, "rows": rows})
            mode = aio_pika.DeliveryMode.PERSISTENT
            await publishing.default_exchange.publish(aio_pika.Message(body, delivery_mode=mode), QUEUE)

        under_way, rows, number, count = [], [], 0, 0
        with open(path, newline="") as file:
            reader = csv.reader(file)
            next(reader)
            for row in reader:
                rows.append(row)
                count += 1
                if len(rows) == 100:
                    under_way.append(asyncio.ensure_future(publish(number, rows)))
                    rows, number = [], number + 1
                    if len(under_way) == 64:
                        await asyncio.gather(*under_way)
                        under_way = []
        if rows:
            under_way.append(asyncio.ensure_future(publish(number, rows)))
        await asyncio.gather(*under_way)
        total = count
        if settled < total:
            await done.wait()
    await queue.delete(if_unused=False, if_empty=False)
    await connection.close()
    await store.aclose()


uvloop.run(main(sys.argv[1]))
