// npm run bench: nsrs beside its peers, in one run, in turns. Ratios are what it is for; absolute times are the machine's.

import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { options as parse } from './lib/options.mjs'
import { judge, seriesTable, verdictTable } from './lib/report.mjs'
import { Calm } from './lib/rounds.mjs'
import { prepare } from './lib/setup.mjs'
import { summarize } from './lib/stats.mjs'
import { cli } from './suites/cli.mjs'
import { imageMemory, images } from './suites/images.mjs'
import { memory } from './suites/memory.mjs'
import { starts } from './suites/starts.mjs'
import { throughput } from './suites/throughput.mjs'
import { versions } from './suites/versions.mjs'
import { namesOf, targets } from './targets.mjs'

const suites = { starts, throughput, versions, cli, memory, images, 'image-memory': imageMemory }
const options = parse()
delete process.env.NODE_EXTRA_CA_CERTS

if (!existsSync(`${options.package}/dist/index.js`)) {
  console.error('nsrs is not built: npm run build')
  process.exit(1)
}
if (process.getuid?.() !== 0) console.error('not root: runc and the bridge are not measured as they are compared here')

/** Is this suite asked for, and this series of it? A series is when it, or one that is compared to it, is. */
function asked(suite) {
  const { only } = options
  if (only.length === 0 || only.includes(suite)) return () => true
  const hit = (name) => only.some((prefix) => !(prefix in suites) && name.startsWith(prefix))
  return (name) =>
    hit(name) || targets.some((target) => target.suite === suite && hit(target.of) && namesOf(target).includes(name))
}

function progress(suite) {
  if (!process.stderr.isTTY) return undefined
  return (round) => process.stderr.write(`\r${suite}: round ${round} `)
}

/** Does a suite have anything that was asked for? */
function selected(suite) {
  const wanted = asked(suite)
  return targets.some((target) => target.suite === suite && namesOf(target).some(wanted))
}

function commit(directory) {
  try {
    return execFileSync('git', ['-C', directory, 'describe', '--always', '--dirty'], { encoding: 'utf8' }).trim()
  } catch {
    return 'unknown'
  }
}

const setup = prepare()
const before = loadavg()
const results = {}
for (const [suite, measure] of Object.entries(suites)) {
  if (!selected(suite) || (suite === 'versions' && options.against === undefined)) continue
  const calm = new Calm(options.wait)
  results[suite] = await measure({ options, setup, wanted: asked(suite), calm, progress: progress(suite) })
  if (calm.turns > 0) results[suite].facts.busyTurns = calm.busy / calm.turns
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  console.log(`\n${suite}\n${seriesTable(results[suite])}`)
}
const verdicts = targets.map((target) => results[target.suite] && judge(target, results[target.suite])).filter(Boolean)
const missed = verdicts.filter(({ met }) => met === false)
console.log(`\n${verdictTable(verdicts)}`)

const machine = {
  cpu: cpus()[0]?.model,
  cpus: cpus().length,
  memoryMb: Math.round(totalmem() / 1e6),
  kernel: release(),
  node: process.version,
  loadBefore: before,
  loadAfter: loadavg(),
}
const load = (values) => values[0].toFixed(1)
console.log(
  `\n${machine.cpus} x ${machine.cpu}, Linux ${machine.kernel}, Node ${machine.node}; load ${load(before)} before, ${load(machine.loadAfter)} after`,
)
const busy = Math.max(0, ...Object.values(results).map(({ facts }) => facts.busyTurns ?? 0))
if (busy > 0.05) {
  const share = Math.round(100 * busy)
  console.log(
    `Others used the machine in up to ${share} % of the turns; ways of several processes suffer most from that.`,
  )
}
console.log(
  missed.length === 0
    ? 'Every target that was measured is met.'
    : `Not met: ${missed.map(({ name }) => name).join('; ')}`,
)

const file = fileURLToPath(new URL('results/latest.json', import.meta.url))
mkdirSync(fileURLToPath(new URL('results', import.meta.url)), { recursive: true })
const series = Object.fromEntries(
  Object.entries(results).map(([suite, { unit, samples, facts }]) => [
    suite,
    {
      unit,
      facts,
      series: Object.fromEntries(Object.entries(samples).map(([name, rounds]) => [name, summarize(rounds.flat())])),
    },
  ]),
)
const version = JSON.parse(readFileSync(`${options.package}/package.json`, 'utf8')).version
const record = {
  date: new Date().toISOString(),
  version,
  commit: commit(options.package),
  options,
  machine,
  suites: series,
  targets: verdicts,
}
writeFileSync(file, `${JSON.stringify(record, null, 2)}\n`)
console.log(`written to ${file}`)
