// The tests of the crates: built, run and counted for test.mjs.

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'

/** What lints while it compiles: nothing is compiled for one of the two only. */
export const linting = { RUSTC_WORKSPACE_WRAPPER: join(import.meta.dirname, 'clippy.sh') }

/**
 * Builds the tests of the crates; the executables of the unit tests, each with the directory of its crate, where cargo
 * starts it. Those below tests/ run the product as an ordinary user by themselves, or it doesn't matter who runs them.
 */
export function build() {
  const args = ['test', '--workspace', '--quiet', '--no-run', '--message-format=json-render-diagnostics']
  const stdio = ['ignore', 'pipe', 'inherit']
  const env = { ...process.env, ...linting }
  const { status, stdout } = spawnSync('cargo', args, { encoding: 'utf8', stdio, env, maxBuffer: 1 << 28 })
  if (status !== 0) process.exit(1)
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
    .filter(({ executable, profile, target }) => executable && profile.test && !target.kind.includes('test'))
    .map(({ executable, manifest_path }) => ({ executable, directory: dirname(manifest_path) }))
}

/** How many tests passed, failed and were skipped, by the closing lines of libtest and the lines of `skip!`. */
function counted(stdout, stderr) {
  const results = [...stdout.matchAll(/^test result: .*?(\d+) passed; (\d+) failed/gm)]
  const sum = (group) => results.reduce((total, result) => total + Number(result[group]), 0)
  const skipped = stderr.match(/^skipped: /gm)?.length ?? 0
  return { passed: sum(1) - skipped, failed: sum(2), skipped }
}

/** Runs these commands, `[program, args, options]`, one after another; what they print. */
async function outputOf(commands) {
  const output = { stdout: '', stderr: '', status: 0 }
  for (const [program, args, options] of commands) {
    const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
    for (const name of ['stdout', 'stderr']) {
      child[name].setEncoding('utf8').on('data', (text) => {
        output[name] += text
      })
    }
    const [status] = await once(child, 'close')
    output.status ||= status ?? 1
  }
  return output
}

/**
 * Starts the tests of the crates. They mostly wait, as ava's do, so both run at the same time; what is returned waits for
 * them, shows what they printed, and returns how many failed and what is to be said of it at the end.
 */
export function start(who, commands) {
  const running = outputOf(commands)
  return async () => {
    const { stdout, stderr, status } = await running
    console.log(`\n── tests of the crates ${who}`)
    process.stdout.write(stdout + stderr)
    const count = counted(stdout, stderr)
    if (status !== 0 && count.failed === 0) count.failed = 1
    console.log(`${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`)
    const isOfFailure = (line) => /^(----|thread|assertion|error|test .*FAILED)/.test(line)
    const failures = status === 0 ? [] : `${stdout}\n${stderr}`.split('\n').filter(isOfFailure)
    return { failed: count.failed, failures }
  }
}
