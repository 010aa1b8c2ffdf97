// node-postgres in the matrix.
"use strict";
const { pipeline } = require("stream/promises");
const { Readable } = require("stream");
const { Client } = require("pg");
const copy = require("pg-copy-streams");
const { settings, sleep, expect, run, NAME, MANY, STATE, SET_UP, INSERT, COUNT, CANCEL_AFTER_MS, NOTIFY_PATIENCE_MS } = require("./common.js");

async function connect() {
  const client = new Client(settings);
  await client.connect();
  for (const sql of SET_UP) await client.query(sql);
  return client;
}

const check = async (worker, client) => worker.checkState((await client.query(STATE)).rows[0]);

async function transactions(worker) {
  const client = await connect();
  const put = (n) => client.query({ name: "put", text: INSERT, values: [NAME, worker.name, n] });
  const count = async (n) => (await client.query({ name: "see", text: COUNT, values: [NAME, worker.name, n] })).rows[0].count;
  for await (const n of worker.loop()) {
    await client.query("begin");
    await put(n);
    expect("the count in the transaction", await count(n), 1);
    await client.query("commit");
    worker.acknowledge(n);
    await client.query("begin");
    await put(-n);
    const error = await client.query("select 1 / $1::int", [0]).catch((thrown) => thrown);
    expect("the error of a division", error.code, "22012");
    await client.query("rollback");
    expect("what was rolled back", await count(-n), 0);
    expect("the last commit", await count(n), 1);
    // the driver's own queue: several queries are under way for the application, one for the server
    const numbers = [1, 2, 3].map((i) => MANY * n + i);
    await Promise.all(numbers.map(put));
    worker.acknowledge(...numbers);
    await check(worker, client);
  }
}

async function copies(worker) {
  const client = await connect();
  for await (const _ of worker.loop()) {
    const numbers = worker.copied();
    const rows = numbers.map((n) => `${NAME}\t${worker.name}\t${n}\n`);
    await pipeline(Readable.from(rows), client.query(copy.from("copy matrix_entry (driver, worker, n) from stdin")));
    worker.acknowledge(...numbers);
    let got = "";
    const out = client.query(copy.to(`copy (select n from matrix_entry where driver = '${NAME}' and worker = '${worker.name}'
      and n >= ${numbers[0]} order by n) to stdout`));
    for await (const chunk of out) got += chunk;
    expect("what COPY gives back", got, numbers.map((n) => `${n}\n`).join(""));
    await check(worker, client);
  }
}

async function notify(worker) {
  const [listener, client] = [await connect(), await connect()];
  const got = [];
  listener.on("notification", (message) => got.push(message.payload));
  await listener.query(`listen "${NAME}"`);
  for await (const n of worker.loop()) {
    await client.query("select pg_notify($1, $2)", [NAME, String(n)]);
    for (const end = Date.now() + NOTIFY_PATIENCE_MS; !got.length && Date.now() < end;) await sleep(5);
    if (got.length) expect("the notification", got, n);
    else worker.lost++;
    got.length = 0;
    await check(worker, listener);
  }
}

async function cancel(worker) {
  const client = await connect();
  for await (const _ of worker.loop()) {
    const sleeping = client.query("select pg_sleep(5)").then(() => ({ code: "none" }), (thrown) => thrown);
    await sleep(CANCEL_AFTER_MS);
    // over TLS the driver waits for an event that doesn't come, and cancels nothing; servers take it in plain, too
    new Client({ ...settings, ssl: false }).cancel(client, client.activeQuery);
    expect("the error of a cancelled statement", (await sleeping).code, "57014");
    await check(worker, client);
  }
}

async function logins(worker) {
  for await (const n of worker.loop()) {
    const client = await connect();
    await client.query(INSERT, [NAME, worker.name, n]);
    worker.acknowledge(n);
    await check(worker, client);
    await client.end();
  }
}

run({ transactions, copy: copies, notify, cancel, logins });
