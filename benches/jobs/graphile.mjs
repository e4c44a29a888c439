// Drains empty jobs with graphile-worker: node graphile.mjs migrate|batched|unbatched. DATABASE_URL names the database,
// GRAPHILE_WORKER_FOLDER the folder of its packages. `migrate` makes its tables and ends. The others print `ready`, wait
// for a line, run jobs until there are none, and print when they began and ended, and how long a run without jobs takes;
// milliseconds. Concurrency and options are those of graphile-worker's own performance test.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

// The package is beside the build products, not beside this file.
const require = createRequire(`${process.env.GRAPHILE_WORKER_FOLDER}/node_modules/`)
const { Logger, runMigrations, runOnce } = require('graphile-worker')

const CONCURRENCY = 24
const BATCHED = { localQueue: { size: 500, refetchDelay: { durationMs: 10 } }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
const mode = process.argv[2]
const options = () => ({
  preset: {
    worker: {
      connectionString: process.env.DATABASE_URL,
      logger: new Logger(() => () => {}),
      concurrentJobs: CONCURRENCY,
      maxPoolSize: CONCURRENCY + 1,
      ...(mode === 'batched' ? BATCHED : {}),
    },
  },
  taskList: { empty: () => {} },
  noHandleSignals: true,
})
const now = () => performance.timeOrigin + performance.now()
const say = (line) => new Promise((resolve) => process.stdout.write(`${line}\n`, resolve))

async function drain() {
  const began = now()
  await runOnce(options())
  return { began, ended: now() }
}

if (mode === 'migrate') {
  await runMigrations(options())
  process.exit()
}
await drain() // compiles the code
const { began, ended } = await drain()
await say('ready')
await createInterface({ input: process.stdin })[Symbol.asyncIterator]().next()
await say(JSON.stringify({ ...(await drain()), empty: ended - began }))
process.exit()
