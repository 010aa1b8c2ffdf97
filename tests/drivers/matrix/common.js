// What the JavaScript programs of the matrix share: README.md beside this says what each program does.
"use strict";
const fs = require("fs");

const env = process.env;
const NAME = env.MATRIX_NAME;
const COPY_ROWS = 40, WARM_UP = 20, PACE_MS = 20;

const settings = {
  host: env.MATRIX_HOST, port: Number(env.MATRIX_PORT), user: env.MATRIX_USER, password: env.MATRIX_PASSWORD,
  database: env.MATRIX_DATABASE, enableChannelBinding: true, ssl: env.MATRIX_CA ? { ca: fs.readFileSync(env.MATRIX_CA, "utf8") } : false,
};

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function expect(what, got, wanted) {
  if (String(got) !== String(wanted)) throw new Error(`${what} is ${got} instead of ${wanted}`);
}

class Worker {
  constructor(name) {
    Object.assign(this, { name, rounds: 0, switches: 0, lost: 0, numbers: [], last: false });
  }

  // The numbers of the rounds; the last one begins when the run is over.
  async *loop() {
    while (!this.last) {
      this.last = fs.existsSync(env.MATRIX_STOP);
      this.rounds++;
      yield this.rounds;
      await sleep(PACE_MS);
    }
  }

  acknowledge(...numbers) {
    this.numbers.push(...numbers);
  }

  // A row of MATRIX_STATE: all is as this session made it, on whichever side it is.
  checkState({ state, server, statements, mood }) {
    expect("the session's state", state, env.MATRIX_WANTED);
    expect("an enum", mood, "calm");
    if (this.server !== undefined && this.server !== server) this.switches++;
    this.server = server;
    if (this.rounds > WARM_UP) {
      if (this.statements !== undefined) expect("the list of prepared statements", statements, this.statements);
      this.statements = statements;
    }
  }

  // The numbers of a round's COPY.
  copied() {
    return Array.from({ length: COPY_ROWS }, (_, i) => this.rounds * COPY_ROWS + i);
  }
}

async function run(bodies) {
  const errors = [];
  process.on("unhandledRejection", (error) => errors.push(`unhandled: ${error.message}`));
  const workers = Object.keys(bodies).map((name) => new Worker(name));
  await Promise.all(workers.map((worker) => bodies[worker.name](worker).catch((error) => {
    errors.push(`${worker.name}: ${error.message}`);
    console.error(error);
  })));
  fs.writeFileSync(env.MATRIX_LEDGER, workers.flatMap((w) => w.numbers.map((n) => `${w.name} ${n}\n`)).join(""));
  const summary = { name: NAME, errors, workers: {} };
  for (const { name, rounds, switches, lost, numbers } of workers) {
    summary.workers[name] = { rounds, switches, lost, acknowledged: numbers.length };
  }
  console.log(JSON.stringify(summary));
  process.exit(errors.length ? 1 : 0);
}

module.exports = {
  settings, sleep, expect, run, NAME, MANY: 1000000, STATE: env.MATRIX_STATE, SET_UP: env.MATRIX_SET_UP.split(";"),
  INSERT: "insert into matrix_entry (driver, worker, n) values ($1, $2, $3)",
  COUNT: "select count(*) from matrix_entry where driver = $1 and worker = $2 and n = $3",
  CANCEL_AFTER_MS: 100, NOTIFY_PATIENCE_MS: 2000,
};
