import { NodeProcess } from '../lib/node.mjs'
import { interleave } from '../lib/rounds.mjs'
import { median } from '../lib/stats.mjs'

/** The ways that are compared, alone and four at a time. */
const ALONE = ['nsrs', 'nsrs (pipes)', 'nsrs (none)', 'nsrs (bridge)', 'nsrs (all eight)', 'nsrs (host tree)']
const AT_ONCE = ['nsrs', 'nsrs (none)', 'nsrs (bridge)']
const WARM = 20
const STARTS = 40
/** A moment between two starts, in which the next container is prewarmed. */
const PAUSE_MS = 5

/**
 * This build beside another one. Each turn is a process of its own: of two processes of one build that measure in turns,
 * one was up to a tenth slower than the other for as long as they lived.
 */
export async function versions({ options, setup, wanted, calm, progress }) {
  const builds = { this: options.package, other: options.against }
  const apart = async (directory, measure) => {
    const node = await NodeProcess.start({ ...setup, package: directory, heapMb: 0 })
    try {
      return [await measure(node)]
    } finally {
      await node.stop()
    }
  }
  const series = []
  for (const [build, directory] of Object.entries(builds)) {
    for (const way of ALONE) {
      const name = `${build} ${way}`
      if (!wanted(name)) continue
      const measure = async (node) => median(await node.turn(way, STARTS, WARM, PAUSE_MS))
      series.push({ name, turn: () => apart(directory, measure) })
    }
    for (const way of AT_ONCE) {
      const name = `${build} ${way} x4`
      if (!wanted(name)) continue
      // The time for one start, so that both kinds of series have one unit.
      const measure = async (node) => {
        await node.turn(way, 1, WARM)
        return 1000 / (await node.ask({ act: 'throughput', way, count: 4 * STARTS, atOnce: 4 })).perSecond
      }
      series.push({ name, turn: () => apart(directory, measure) })
    }
  }
  const rounds = Math.max(4, Math.ceil(options.rounds / 4))
  return { unit: 'ms', samples: await interleave(series, { rounds, calm, onRound: progress }), facts: {} }
}
