import { makeLayered } from '../lib/layered.mjs'
import { Limit } from '../lib/limit.mjs'
import { NodeProcess } from '../lib/node.mjs'
import { interleave } from '../lib/rounds.mjs'
import { makeWays } from '../ways.mjs'

/** These take so long that one start in a round is enough. */
const SLOW = /^runc/
/** In the process with the large heap. */
const LARGE = ['spawn', 'nsrs', 'spawn (pipes)', 'nsrs (pipes)']
const HEAP_MB = 500
/**
 * In processes of their own: a process remembers eight kinds of containers, and these are to be compared with each other
 * as they are where there is nothing else.
 */
const APART = [/^nsrs \((directory|image)/, /^nsrs \(first/, /^nsrs exec/]
const isApart = (name) => APART.some((pattern) => pattern.test(name))

/** One start at a time, from the call to the end of the program. */
export async function starts({ options, setup, wanted, calm, progress }) {
  const settings = { ...setup, package: options.package }
  if (wanted('nsrs (image)')) settings.layered = await makeLayered(setup, options)
  const names = Object.entries(makeWays(settings, { run() {}, Container: {} }))
    .filter(([, way]) => way !== undefined)
    .map(([name]) => name)
  const processes = []
  const series = []
  const add = (name, turn) => wanted(name) && series.push({ name, turn })
  const open = async (more) => {
    const process = await NodeProcess.start({ ...settings, ...more })
    processes.push(process)
    return process
  }

  const small = await open({ heapMb: 0 })
  for (const name of names) {
    if (!wanted(name) || isApart(name)) continue
    try {
      await small.turn(name, 1, 0)
      add(name, () => (SLOW.test(name) ? small.turn(name, 1, 0) : small.turn(name)))
    } catch (error) {
      // A peer that can't run here is left out; a way of our own that can't is a mistake.
      if (name.startsWith('nsrs') || name.startsWith('spawn')) throw error
      console.error(`skipped: ${error.message.split('\n')[0]}`)
    }
  }
  for (const pattern of APART) {
    const apart = names.filter((name) => pattern.test(name) && wanted(name))
    const process = apart.length > 0 ? await open({ heapMb: 0 }) : undefined
    for (const name of apart) add(name, () => process.turn(name))
  }
  let large
  if (LARGE.some((name) => wanted(`${name}, 500 MB`))) {
    large = await open({ heapMb: HEAP_MB })
    for (const name of LARGE) add(`${name}, 500 MB`, () => large.turn(name))
  }
  if (setup.limit !== undefined) {
    for (const network of ['host', 'none', 'bridge']) {
      const name = network === 'host' ? 'limit' : `limit (${network})`
      if (!wanted(name)) continue
      const limit = new Limit(setup, network)
      processes.push(limit)
      add(name, () => limit.turn())
    }
  }
  const samples = await interleave(series, { rounds: options.rounds, calm, onRound: progress })
  for (const process of processes) await process.stop()
  return { unit: 'ms', samples, facts: { smallRssMb: small.heapMb, largeRssMb: large?.heapMb } }
}
