// A Node process of its own, with a heap as large as it is told: measures starts in itself, one at a time or several,
// and tells the times to the process that asked.

import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { makeWays } from './ways.mjs'

const settings = JSON.parse(process.argv[2])
const library = await import(pathToFileURL(`${settings.package}/dist/index.js`).href)
const { run } = library
const ways = makeWays(settings, library)

/** Memory that is really there: half in buffers, half in objects. */
function fill(megabytes) {
  const kept = []
  for (let mb = 0; mb < megabytes / 2; mb++) kept.push(Buffer.alloc(1 << 20, mb & 255))
  const before = process.memoryUsage().heapUsed
  while (process.memoryUsage().heapUsed - before < (megabytes / 2) * 1e6) {
    for (let count = 0; count < 10_000; count++)
      kept.push({ name: `object ${count}`, values: [count, count + 1, count * 1.5] })
  }
  return kept
}

async function turn({ way, count, warm, pauseMs = ways[way].pauseMs }) {
  const start = ways[way]
  const samples = []
  for (let index = -warm; index < count; index++) {
    if (pauseMs !== undefined) await sleep(pauseMs)
    const from = process.hrtime.bigint()
    await start()
    const took = Number(process.hrtime.bigint() - from) / 1e6
    if (index >= 0) samples.push(took)
  }
  return { samples }
}

/** Starts per second with so many at a time. */
async function throughput({ way, count, atOnce }) {
  const start = ways[way]
  let begun = 0
  const lane = async () => {
    while (begun < count) {
      begun++
      await start()
    }
  }
  const from = process.hrtime.bigint()
  await Promise.all(Array.from({ length: atOnce }, lane))
  return { perSecond: count / (Number(process.hrtime.bigint() - from) / 1e9) }
}

/** The supervisor: the child of this process that says so. */
function supervisor() {
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const parent = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')[1]
      if (Number(parent) !== process.pid) continue
      if (readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[1] === 'supervise') return Number(pid)
    } catch {
      // It has ended meanwhile.
    }
  }
  throw new Error('there is no supervisor')
}

/** Kilobytes of the supervisor's memory. */
function memory() {
  const pid = supervisor()
  const [status, rollup] = ['status', 'smaps_rollup'].map((name) => readFileSync(`/proc/${pid}/${name}`, 'utf8'))
  const number = (text, key) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(text)?.[1])
  const privately = number(rollup, 'Private_Clean') + number(rollup, 'Private_Dirty')
  return { vmRss: number(status, 'VmRSS'), rss: number(rollup, 'Rss'), pss: number(rollup, 'Pss'), private: privately }
}

/** Containers that stay, until `release` ends them. */
const staying = []
async function hold({ count, options }) {
  for (let index = 0; index < count; index++) {
    const controller = new AbortController()
    const ended = run('/bin/sleep', ['1000'], {
      ...options,
      reject: false,
      signal: controller.signal,
      killSignal: 'SIGKILL',
    })
    staying.push({ controller, ended })
  }
  // All are there when one that was asked for last has come and gone.
  await run('/bin/true', [], options)
  await new Promise((resolve) => setTimeout(resolve, 300))
  return {}
}

async function release() {
  for (const { controller } of staying) controller.abort()
  await Promise.all(staying.splice(0).map(({ ended }) => ended))
  return {}
}

const acts = { turn, throughput, memory, hold, release }

process.on('message', async (request) => {
  try {
    process.send(await acts[request.act](request))
  } catch (error) {
    process.send({ error: String(error?.stack ?? error) })
  }
})

globalThis.kept = settings.heapMb > 0 ? fill(settings.heapMb) : []
process.send({ rssMb: Math.round(process.memoryUsage().rss / 1e6) })
