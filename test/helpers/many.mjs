// 200 containers at once, several times: writes failures, and descriptors and memory before and after.

import { readdirSync, readFileSync } from 'node:fs'
import { run } from '../../dist/index.js'

const [network, together] = [process.argv[2], Number(process.argv[3])]
const failures = []

async function round(count) {
  const results = await Promise.allSettled(
    Array.from({ length: count }, (_, index) => run('echo', [String(index)], { network })),
  )
  failures.push(
    ...results.flatMap((result, index) =>
      result.status === 'rejected'
        ? [result.reason.message]
        : result.value.stdout === String(index)
          ? []
          : [`wrote ${result.value.stdout}`],
    ),
  )
}

function supervisor() {
  const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim().split(' ')
  return children.find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('supervise'))
}

function measure() {
  const pid = supervisor()
  const rss = (pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1])
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
  return {
    node: readdirSync('/proc/self/fd').length,
    supervisor: readdirSync(`/proc/${pid}/fd`).length,
    rss: rss(pid),
    nodeRss: rss(process.pid),
    children,
  }
}

await round(together)
const before = measure()
for (let index = 0; index < 2; index++) await round(together)
process.stdout.write(JSON.stringify({ failures, before, after: measure() }))
