// Runs all tests: those of the crates, and ava's as root and as an ordinary user. Arguments go to ava.

import { spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import * as crates from './crates.mjs'
import { watch } from './leftovers.mjs'

// npm puts the programs of packages first, and one of them is called nft.
process.env.PATH = process.env.PATH.split(':')
  .filter((directory) => !directory.includes('node_modules'))
  .join(':')

/** Arguments choose files of ava's; then the tests of the crates stay out. */
const executables = process.argv.length === 2 ? crates.build() : undefined

/** Temporary files of this run, and by its name the mark of its processes. */
const run = mkdtempSync(join(tmpdir(), 'nsrs-run-'))
chmodSync(run, 0o1777)
const mark = { TMPDIR: run, NSRS_TEST_RUN: run }

/** What failed, to be told again at the end. */
const failures = []

/** Runs ava and returns how many tests passed, failed and were skipped. */
async function ava(who, command, env) {
  const [program, ...args] = [...command, 'node_modules/.bin/ava', '--tap', ...process.argv.slice(2)]
  console.log(`\n── tests ${who}`)
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, ...mark, ...env } })
  const count = { passed: 0, failed: 0, skipped: 0 }
  let isOfFailure = false
  for await (const line of createInterface({ input: child.stdout })) {
    if (/^(TAP version|1\.\.\d+|# (tests|pass|fail|skip)|---TTY)/.test(line)) continue
    const [, not, title] = /^(not )?ok \d+ - (.*)$/.exec(line) ?? []
    if (title === undefined) {
      if (line.trim() !== '') console.log(line)
      if (isOfFailure) failures.push(line)
      continue
    }
    const kind = / # SKIP/.test(title) ? 'skipped' : not ? 'failed' : 'passed'
    count[kind]++
    console.log(`${{ passed: '✔', failed: '✘', skipped: '-' }[kind]} ${title}`)
    isOfFailure = kind === 'failed'
    if (isOfFailure) failures.push(`✘ ${title} (${who})`)
  }
  const status = await new Promise((resolve) =>
    child.exitCode === null ? child.on('close', resolve) : resolve(child.exitCode),
  )
  if (status !== 0 && count.failed === 0) count.failed = 1
  console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`)
  return count
}

let failed = 0
const leftovers = watch(run)
/** Starts the tests of the crates, and returns what waits for them. */
function startCrates(who, commands) {
  if (!executables) return async () => {}
  const ended = crates.start(who, commands)
  return async () => {
    const result = await ended()
    failed += result.failed
    failures.push(...result.failures)
  }
}

const who = process.getuid() === 0 ? 'as root' : 'as this user'
const cargo = ['test', '--workspace', '--quiet', '--no-fail-fast']
const ended = startCrates(who, [['cargo', cargo, { env: { ...process.env, ...crates.linting } }]])
failed += (await ava(who, [], {})).failed
await ended()
if (process.getuid() === 0) {
  const tester = ['setpriv', '--reuid=tester', '--regid=tester', '--init-groups']
  const env = { HOME: '/home/tester', USER: 'tester', LOGNAME: 'tester', XDG_RUNTIME_DIR: '', NSRS_STATE_DIR: '' }
  // Cargo itself may be out of the tester's reach; what it has built is not.
  const commands = executables?.map(({ executable, directory }) => [
    tester[0],
    [...tester.slice(1), executable, '--quiet'],
    { cwd: directory, env: { ...process.env, ...env, TMPDIR: run } },
  ])
  const ended = startCrates('as an ordinary user', commands)
  failed += (await ava('as an ordinary user', tester, env)).failed
  await ended()
}
for (const [kind, left] of Object.entries(await leftovers())) {
  if (left.length === 0) continue
  failed++
  failures.push(`✘ left behind, ${kind}: ${left.slice(0, 20).join(', ')}`)
}
rmSync(run, { recursive: true, force: true })
if (failures.length > 0) console.log(['\n── what failed', ...failures].join('\n'))
process.exit(failed === 0 ? 0 : 1)
