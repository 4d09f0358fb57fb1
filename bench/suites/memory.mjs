import { NodeProcess } from '../lib/node.mjs'

const RUNS = 100
const CONTAINERS = 50

/** What the supervisor keeps of the machine's memory, from /proc/PID/status and smaps_rollup. */
export async function memory({ options, setup, wanted }) {
  const samples = {}
  const take = (name, value) => {
    if (wanted(name)) samples[name] = [[value]]
  }
  for (const network of ['none', 'bridge']) {
    const node = await NodeProcess.start({ ...setup, package: options.package, heapMb: 0 })
    const way = `nsrs (${network})`
    await node.turn(way, RUNS, 0)
    const before = await node.ask({ act: 'memory' })
    await node.ask({
      act: 'hold',
      count: CONTAINERS,
      options: { rootfs: setup.root, network, stdout: 'ignore', stderr: 'ignore' },
    })
    const during = await node.ask({ act: 'memory' })
    await node.ask({ act: 'release' })
    await node.stop()
    take(`supervisor VmRSS, ${network}`, before.vmRss)
    take(`supervisor Pss, ${network}`, before.pss)
    take(`supervisor private, ${network}`, before.private)
    take(`per container Rss, ${network}`, (during.rss - before.rss) / CONTAINERS)
    take(`per container private, ${network}`, (during.private - before.private) / CONTAINERS)
    take(`per container Pss, ${network}`, (during.pss - before.pss) / CONTAINERS)
  }
  return { unit: 'kB', samples, facts: { runs: RUNS, containers: CONTAINERS } }
}
