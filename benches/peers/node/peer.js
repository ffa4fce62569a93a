// What one writes with Node: amqplib, undici, ioredis. See ../README.md.
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import amqp from "amqplib";
import Redis from "ioredis";
import { Pool } from "undici";

const CONCURRENCY = 64;
const QUEUE = "peer.batches";

const connection = await amqp.connect(process.env.AMQP_URL);
const redis = new Redis(process.env.REDIS_URL);
const sink = new URL(process.env.SINK_URL);
const pool = new Pool(sink.origin, { connections: CONCURRENCY });

const publishing = await connection.createConfirmChannel();
await publishing.assertQueue(QUEUE, { durable: true, arguments: { "x-queue-type": "quorum" } });
const consuming = await connection.createChannel();
await consuming.prefetch(2 * CONCURRENCY);

let total = Infinity;
let settled = 0;
let done;
const finished = new Promise((resolve) => (done = resolve));

function message(to, name, clinic) {
  return {
    from: "+912248931479",
    to,
    content: {
      type: "interactive",
      interactive: {
        type: "flow",
        header: { type: "text", text: "Your autumn check-up" },
        body: {
          text: `Dear ${name}, it is time for your check-up at ${clinic}. Choose a day and an hour that suit you; it takes a minute.`,
        },
        footer: { text: "Reply STOP to hear no more from us" },
        action: {
          name: "flow",
          parameters: {
            flow_message_version: "3",
            flow_id: "1323000000000001",
            flow_token: to,
            flow_cta: "Book now",
            flow_action: "navigate",
            flow_action_payload: {
              screen: "APPOINTMENT",
              data: { customer_name: name, clinic, slots: ["09:00", "11:30", "15:00", "17:30"] },
            },
          },
        },
      },
    },
  };
}

await consuming.consume(QUEUE, async (delivery) => {
  if (delivery === null) return; // The queue is deleted.
  const { number, rows } = JSON.parse(delivery.content.toString());
  const body = JSON.stringify({ whatsapp: { messages: rows.map(([to, name, clinic]) => message(to, name, clinic)) } });
  const answer = await pool.request({
    method: "POST",
    path: sink.pathname,
    headers: { "content-type": "application/json" },
    body,
  });
  const { response } = await answer.body.json();
  const outcomes = [];
  response.whatsapp.messages.forEach((entry, index) => {
    outcomes.push(rows[index][0], entry.code === 202 ? `accepted ${entry.data.sid}` : `rejected ${entry.code}`);
  });
  await redis.pipeline().hset(`peer:batch:${number}`, outcomes).hincrby("peer:campaign", "settled", rows.length).exec();
  consuming.ack(delivery);
  settled += rows.length;
  if (settled >= total) done();
});

let rows = [];
let number = 0;
let count = 0;
const publish = () =>
  publishing.sendToQueue(QUEUE, Buffer.from(JSON.stringify({ number: number++, rows })), { persistent: true });
const lines = createInterface({ input: createReadStream(process.argv[2]) });
let first = true;
for await (const line of lines) {
  if (first) {
    first = false;
    continue;
  }
  rows.push(line.split(","));
  count += 1;
  if (rows.length === 100) {
    publish();
    rows = [];
    if (number % 64 === 0) await publishing.waitForConfirms();
  }
}
if (rows.length > 0) publish();
await publishing.waitForConfirms();
total = count;
if (settled < total) await finished;
await consuming.deleteQueue(QUEUE);
await connection.close();
await pool.close();
redis.disconnect();
