// Runs all tests: those of the crates, and ava's as root and as an ordinary user. Arguments go to ava.

import { spawn, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

// npm puts the programs of packages first, and one of them is called nft.
process.env.PATH = process.env.PATH.split(':')
  .filter((directory) => !directory.includes('node_modules'))
  .join(':')

/** What nsrs must not leave behind on the host. */
function leftovers() {
  const links = readdirSync('/sys/class/net').filter((name) => /nsrs|veth/.test(name) && name !== 'nsrs0')
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes('nsrs'))
  const processes = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && isOurs(pid))
  return { links, mounts, processes }
}

function isOurs(pid) {
  try {
    return /^\S*nsrs-runtime\0(supervise|run|init)\0/.test(readFileSync(`/proc/${pid}/cmdline`, 'latin1'))
  } catch {
    return false
  }
}

/** Runs ava and returns how many tests passed, failed and were skipped. */
async function ava(who, command, env) {
  const [program, ...args] = [...command, 'node_modules/.bin/ava', '--tap', ...process.argv.slice(2)]
  console.log(`\n── tests ${who}`)
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...env } })
  const count = { passed: 0, failed: 0, skipped: 0 }
  for await (const line of createInterface({ input: child.stdout })) {
    if (/^(TAP version|1\.\.\d+|# (tests|pass|fail|skip)|---TTY)/.test(line)) continue
    const [, not, title] = /^(not )?ok \d+ - (.*)$/.exec(line) ?? []
    if (title === undefined) {
      if (line.trim() !== '') console.log(line)
      continue
    }
    const kind = / # SKIP/.test(title) ? 'skipped' : not ? 'failed' : 'passed'
    count[kind]++
    console.log(`${{ passed: '✔', failed: '✘', skipped: '-' }[kind]} ${title}`)
  }
  const status = await new Promise((resolve) =>
    child.exitCode === null ? child.on('close', resolve) : resolve(child.exitCode),
  )
  if (status !== 0 && count.failed === 0) count.failed = 1
  console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`)
  return count
}

let failed = 0
if (process.argv.length === 2) {
  failed += spawnSync('cargo', ['test', '--workspace', '--quiet'], { stdio: 'inherit' }).status === 0 ? 0 : 1
}
const before = leftovers()
failed += (await ava(process.getuid() === 0 ? 'as root' : 'as this user', [], {})).failed
if (process.getuid() === 0) {
  const tester = ['setpriv', '--reuid=tester', '--regid=tester', '--init-groups']
  const env = { HOME: '/home/tester', USER: 'tester', LOGNAME: 'tester', XDG_RUNTIME_DIR: '', NSRS_STATE_DIR: '' }
  failed += (await ava('as an ordinary user', tester, env)).failed
}
// A supervisor takes a moment to notice that its Node is gone.
await new Promise((resolve) => setTimeout(resolve, 500))
const after = leftovers()
for (const kind of Object.keys(after)) {
  const left = after[kind].filter((item) => !before[kind].includes(item))
  if (left.length > 0) {
    failed++
    console.log(`✘ left behind, ${kind}: ${left.join(', ')}`)
  }
}
process.exit(failed === 0 ? 0 : 1)
