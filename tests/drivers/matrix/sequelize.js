// Sequelize in the matrix: an object-relational mapper with a pool of its own, on node-postgres.
"use strict";
const { DataTypes, QueryTypes, Sequelize } = require("sequelize");
const { settings, expect, run, NAME, MANY, STATE, SET_UP } = require("./common.js");

async function connect() {
  const sequelize = new Sequelize(settings.database, settings.user, settings.password, {
    dialect: "postgres", host: settings.host, port: settings.port, logging: false, pool: { min: 1, max: 1 },
    dialectOptions: settings.ssl ? { ssl: settings.ssl } : {},
  });
  const Entry = sequelize.define("entry", {
    id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true },
    driver: DataTypes.TEXT, worker: DataTypes.TEXT, n: DataTypes.BIGINT,
  }, { tableName: "matrix_entry", timestamps: false });
  for (const sql of SET_UP) await sequelize.query(sql);
  return { sequelize, Entry };
}

const check = async (worker, sequelize) => worker.checkState((await sequelize.query(STATE, { type: QueryTypes.SELECT }))[0]);

async function transactions(worker) {
  const { sequelize, Entry } = await connect();
  const entry = (n) => ({ driver: NAME, worker: worker.name, n });
  for await (const n of worker.loop()) {
    await sequelize.transaction(async (transaction) => {
      const made = await Entry.create(entry(n), { transaction });
      expect("the count in the transaction", await Entry.count({ where: entry(n), transaction }), 1);
      expect("the driver of the new row", (await Entry.findByPk(made.id, { transaction })).driver, NAME);
    });
    worker.acknowledge(n);
    const error = await sequelize.transaction(async (transaction) => {
      await Entry.create(entry(-n), { transaction });
      await sequelize.query("select 1 / $1::int", { bind: [0], transaction });
    }).catch((thrown) => thrown);
    expect("the error of a division", error.original.code, "22012");
    expect("what was rolled back", await Entry.count({ where: entry(-n) }), 0);
    expect("the last commit", await Entry.count({ where: entry(n) }), 1);
    const numbers = [1, 2, 3].map((i) => MANY * n + i);
    await Entry.bulkCreate(numbers.map(entry));
    worker.acknowledge(...numbers);
    await check(worker, sequelize);
  }
}

async function logins(worker) {
  for await (const n of worker.loop()) {
    const { sequelize, Entry } = await connect();
    await Entry.create({ driver: NAME, worker: worker.name, n });
    worker.acknowledge(n);
    await check(worker, sequelize);
    await sequelize.close();
  }
}

run({ transactions, logins });
