// Leads a campaign through its life with the types that openapi-typescript has generated.

import assert from "node:assert";
import createClient from "openapi-fetch";
import type { components, paths } from "./flowcast.ts";

type Job = components["schemas"]["Job"];

const client = createClient<paths>({
  baseUrl: process.env.URL,
  headers: { Authorization: "Bearer act-1" },
});

/** What was answered; an error ends the program. */
async function of<T>(answer: Promise<{ data?: T; error?: unknown }>): Promise<T> {
  const { data, error } = await answer;
  if (data === undefined) throw new Error(JSON.stringify(error));
  return data;
}

const rows = "phone,name\n+919876500001,Asha\n+919876500002,Ravi\n+919876500003,Meera\n12,Nobody\n";
const uploaded = await of(
  client.POST("/audiences", {
    params: { query: { name: "people.csv" } },
    body: rows,
    bodySerializer: (body) => body,
    headers: { "content-type": "application/octet-stream" },
  }),
);
assert.deepEqual([uploaded.path, uploaded.rows], ["people.csv", 4]);

const job: Job = {
  version: 1,
  id: "life",
  account: "main",
  from: "+912248931479",
  audience: { csv: { path: "people.csv" } },
  message: { type: "text", text: { body: "Dear {{ name }}" } },
  schedule: { start_at: "2030-01-01T09:00:00Z" },
};
const checked = await of(client.POST("/campaigns", { params: { query: { check: true } }, body: job }));
assert("recipients" in checked && checked.recipients === 3);
await of(client.POST("/campaigns", { body: job }));
const life = { params: { path: { id: "life" } } };
assert.equal((await of(client.POST("/campaigns/{id}/pause", life))).state, "paused");
assert.equal((await of(client.POST("/campaigns/{id}/resume", life))).state, "scheduled");
assert.equal((await of(client.POST("/campaigns/{id}/cancel", life))).state, "cancelled");
const refused = await client.POST("/campaigns/{id}/pause", life);
assert.equal(refused.error?.status, 409);

const { schedule: _, ...sent } = job;
await of(client.POST("/campaigns", { body: { ...sent, id: "life-2" } }));
const again = { params: { path: { id: "life-2" } } };
let status = await of(client.GET("/campaigns/{id}", again));
while (status.state !== "completed") {
  await new Promise((wake) => setTimeout(wake, 50));
  status = await of(client.GET("/campaigns/{id}", again));
}
assert.deepEqual([status.counts.accepted, status.counts.skipped, status.account], [3, 1, "main"]);
assert.equal((await of(client.POST("/campaigns/{id}/retry", { ...again, body: { codes: ["500"] } }))).messages, 0);
const page = await of(client.GET("/campaigns", { params: { query: { state: "completed", limit: 1 } } }));
assert.deepEqual(page.items.map((item) => item.id), ["life-2"]);
const report = await of(client.GET("/campaigns/{id}/report.csv", { ...again, parseAs: "text" }));
assert.equal(report.trimEnd().split("\n").length, 5);
console.log("the campaign has led its life");
