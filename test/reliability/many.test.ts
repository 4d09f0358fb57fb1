// Many containers at once from one Node process.

import { join } from 'node:path'
import test from 'ava'
import { exec, isRoot, place, root, user } from '../helpers/product.ts'
import { skip } from '../helpers/skips.ts'

const script = join(import.meta.dirname, '../helpers/many.mjs')
const TOGETHER = 200

interface Measure {
  node: number
  supervisor: number
  rss: number
  nodeRss: number
  children: string
}

for (const [as, network] of [
  [root, 'none'],
  [root, 'bridge'],
  [user, 'none'],
] as const) {
  const title = `200 concurrent run() neither fail nor leak, with the network ${network} (as ${as.uid === 0 ? 'root' : 'an ordinary user'})`
  if (as.uid === 0 && !isRoot) {
    skip(title, 'needs root')
    continue
  }
  test.serial(title, async (t) => {
    const at = place(t, as)
    const command = [process.execPath, script, network, String(TOGETHER)]
    const { code, stdout, stderr } =
      network === 'bridge'
        ? await exec('unshare', ['--net', '--', ...command], at.options())
        : await at.exec(command[0] as string, command.slice(1))
    t.is(code, 0, stderr)
    const { failures, before, after } = JSON.parse(stdout) as { failures: string[]; before: Measure; after: Measure }
    t.deepEqual(failures, [])
    t.is(after.node, before.node, 'descriptors of Node')
    t.is(after.supervisor, before.supervisor, 'descriptors of the supervisor')
    t.is(after.children, '', 'children of the supervisor')
    t.true(after.rss < before.rss + 1024, `the supervisor grew from ${before.rss} kB to ${after.rss} kB`)
    t.true(after.rss < 8192, `the supervisor has ${after.rss} kB`)
    t.log(JSON.stringify({ before, after }))
  })
}
