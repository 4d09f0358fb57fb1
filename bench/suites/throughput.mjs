import { Limit } from '../lib/limit.mjs'
import { NodeProcess } from '../lib/node.mjs'
import { interleave } from '../lib/rounds.mjs'

const AT_ONCE = 4

/** Starts per second with four under way at a time. */
export async function throughput({ options, setup, wanted, calm, progress }) {
  const count = options.quick ? 60 : 160
  const processes = []
  const series = []
  const node = await NodeProcess.start({ ...setup, package: options.package, heapMb: 0 })
  processes.push(node)
  for (const way of ['spawn', 'nsrs', 'nsrs (none)', 'nsrs (bridge)']) {
    const name = `${way} x4`
    if (!wanted(name)) continue
    await node.turn(way, 1, 0)
    series.push({
      name,
      turn: async () => [(await node.ask({ act: 'throughput', way, count, atOnce: AT_ONCE })).perSecond],
    })
  }
  for (const network of setup.limit === undefined ? [] : ['host', 'none', 'bridge']) {
    const name = network === 'host' ? 'limit x4' : `limit (${network}) x4`
    if (!wanted(name)) continue
    const limit = new Limit(setup, network)
    processes.push(limit)
    series.push({ name, turn: async () => [await limit.throughput(AT_ONCE, count)] })
  }
  const samples = await interleave(series, {
    rounds: Math.max(4, Math.ceil(options.rounds / 6)),
    calm,
    onRound: progress,
  })
  for (const process of processes) await process.stop()
  return { unit: 'starts/s', samples, facts: { atOnce: AT_ONCE, count } }
}
