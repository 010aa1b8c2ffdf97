// postgres.js in the matrix: it prepares everything, and pipelines.
"use strict";
const { pipeline } = require("stream/promises");
const { Readable } = require("stream");
const postgres = require("postgres");
const { settings, sleep, expect, run, NAME, MANY, STATE, SET_UP, CANCEL_AFTER_MS, NOTIFY_PATIENCE_MS } = require("./common.js");

// One connection; one that the driver silently made anew would lack what is set here.
async function connect() {
  const sql = postgres({ ...settings, max: 1, fetch_types: false });
  for (const text of SET_UP) await sql.unsafe(text);
  return sql;
}

const check = async (worker, sql) => worker.checkState((await sql.unsafe(STATE))[0]);

const put = (sql, worker, n) => sql`insert into matrix_entry (driver, worker, n) values (${NAME}, ${worker.name}, ${n})`;

async function count(sql, worker, n) {
  return (await sql`select count(*) from matrix_entry where driver = ${NAME} and worker = ${worker.name} and n = ${n}`)[0].count;
}

async function transactions(worker) {
  const sql = await connect();
  for await (const n of worker.loop()) {
    await sql.begin(async (tx) => {
      await put(tx, worker, n);
      expect("the count in the transaction", await count(tx, worker, n), 1);
    });
    worker.acknowledge(n);
    const error = await sql.begin(async (tx) => {
      await put(tx, worker, -n);
      await tx`select 1 / ${0}::int`;
    }).catch((thrown) => thrown);
    expect("the error of a division", error.code, "22012");
    expect("what was rolled back", await count(sql, worker, -n), 0);
    expect("the last commit", await count(sql, worker, n), 1);
    const numbers = [1, 2, 3].map((i) => MANY * n + i);
    await Promise.all(numbers.map((number) => put(sql, worker, number))); // in one pipeline
    worker.acknowledge(...numbers);
    let sum = 0;
    await sql`select g from generate_series(1, 30) g`.cursor(7, (rows) => { for (const row of rows) sum += row.g; });
    expect("what a cursor gives", sum, 465);
    await check(worker, sql);
  }
}

async function copies(worker) {
  const sql = await connect();
  for await (const _ of worker.loop()) {
    const numbers = worker.copied();
    const rows = numbers.map((n) => `${NAME}\t${worker.name}\t${n}\n`);
    await pipeline(Readable.from(rows), await sql`copy matrix_entry (driver, worker, n) from stdin`.writable());
    worker.acknowledge(...numbers);
    let got = "";
    const out = await sql.unsafe(`copy (select n from matrix_entry where driver = '${NAME}' and worker = '${worker.name}'
      and n >= ${numbers[0]} order by n) to stdout`).readable();
    for await (const chunk of out) got += chunk;
    expect("what COPY gives back", got, numbers.map((n) => `${n}\n`).join(""));
    await check(worker, sql);
  }
}

async function notify(worker) {
  const sql = await connect();
  const got = [];
  let connected = 0;
  await sql.listen(NAME, (payload) => got.push(payload), () => connected++);
  for await (const n of worker.loop()) {
    await sql.notify(NAME, String(n));
    for (const end = Date.now() + NOTIFY_PATIENCE_MS; !got.length && Date.now() < end;) await sleep(5);
    if (got.length) expect("the notification", got, n);
    else worker.lost++;
    got.length = 0;
    expect("how often the listener connected", connected, 1);
    await check(worker, sql);
  }
}

async function cancel(worker) {
  const sql = await connect();
  for await (const _ of worker.loop()) {
    const query = sql`select pg_sleep(5)`;
    const sleeping = query.then(() => ({ code: "none" }), (thrown) => thrown);
    await sleep(CANCEL_AFTER_MS);
    query.cancel();
    expect("the error of a cancelled statement", (await sleeping).code, "57014");
    await check(worker, sql);
  }
}

async function logins(worker) {
  for await (const n of worker.loop()) {
    const sql = await connect();
    await put(sql, worker, n);
    worker.acknowledge(n);
    await check(worker, sql);
    await sql.end();
  }
}

run({ transactions, copy: copies, notify, cancel, logins });
