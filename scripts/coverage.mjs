// Measures what the tests reach: `npm run coverage`, as root, for most tests need it. Reports are in target/coverage.
// Arguments choose files of ava's; then the tests of the crates stay out.
//
// Counters of the crates are mapped files, shared by all processes of one executable: so what a process does is counted even
// where it is a copy that never executes anything, is killed, or executes something else. Not counted is what has an environment of its
// own: inits and the entrance with what it makes; nor what an ordinary user runs.

import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parse, table } from './coverage-report.mjs'

const target = spawnSync('rustc', ['-vV'], { encoding: 'utf8' }).stdout.match(/^host: (.*)$/m)[1]
const directory = resolve('target/coverage')
const native = join(directory, 'native')
const counters = join(directory, 'counters')
const tools = resolve('target/tools')
const files = process.argv.slice(2)

const built = ['--target', target, '--target-dir', join(directory, 'build')]
const env = {
  ...process.env,
  CARGO_PROFILE_DEV_DEBUG: '0',
  RUSTFLAGS: '-Cinstrument-coverage -Cllvm-args=-runtime-counter-relocation',
  // One file for each executable (%m), into which its processes count as they go (%c).
  LLVM_PROFILE_FILE: join(counters, '%m%c.profraw'),
  NSRS_NATIVE_DIR: native,
}

/** Runs a command; a test that fails is told, and what was reached is counted all the same. */
function run(command, args, more = {}, mustSucceed = true) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', env: { ...env, ...more } })
  if (error) throw error
  if (status !== 0 && mustSucceed) process.exit(status ?? 1)
}

/** The executables of the last build that have counters: tests, and what travels with the package. */
function executables() {
  const args = ['test', '--workspace', ...built, '--no-run', '--quiet', '--message-format=json']
  const { stdout } = spawnSync('cargo', args, { env, encoding: 'utf8', maxBuffer: 1 << 28 })
  const tests = stdout
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line).executable)
  return [...new Set(tests.filter(Boolean)), ...readdirSync(native).map((name) => join(native, name))]
}

/** The tool that reads counters, built where it is missing: LLVM's own of the compiler's version are rarely at hand. */
function cov() {
  const tool = join(tools, 'bin/cov')
  if (existsSync(tool)) return tool
  console.log('── cargo install llvm_profparser')
  const { status } = spawnSync(
    'cargo',
    ['install', '--locked', '--quiet', '--debug', 'llvm_profparser', '--root', tools],
    {
      stdio: 'inherit',
    },
  )
  if (status !== 0) process.exit(1)
  return tool
}

const tool = cov()
rmSync(counters, { recursive: true, force: true })
mkdirSync(counters, { recursive: true })
mkdirSync(native, { recursive: true })
const shipped = ['nsrs-node', 'nsrs-runtime', 'nsrs-image'].flatMap((name) => ['-p', name])
run('cargo', ['build', ...shipped, ...built], { RUSTC_WORKSPACE_WRAPPER: join(import.meta.dirname, 'rustc.sh') })
for (const [from, to] of [
  ['libnsrs_node.so', 'nsrs.node'],
  ['nsrs-runtime', 'nsrs-runtime'],
  ['nsrs-image', 'nsrs-image'],
]) {
  copyFileSync(join(directory, 'build', target, 'debug', from), join(native, to))
}

if (files.length === 0) run('cargo', ['test', '--workspace', ...built, '--quiet', '--no-fail-fast'], {}, false)
// V8 counts in every Node process, and what the bundles were made of is found by their maps.
run('npx', ['tsup', '--sourcemap', 'inline'])
const sources = [
  '--all',
  '--src',
  'ts',
  '--src',
  'cli',
  '--include',
  'ts/**',
  '--include',
  'cli/**',
  '--exclude-after-remap',
]
const reports = ['--reporter', 'text', '--reporter', 'html', '--reports-dir', join(directory, 'ts')]
run('npx', ['--yes', 'c8@12', ...sources, ...reports, 'npx', 'ava', ...files], {}, false)
// What is published has no maps.
run('npx', ['tsup'])

// Where a test gives a program an environment of its own, the counters lie where it was started.
for (const crate of readdirSync('crates')) {
  for (const name of readdirSync(join('crates', crate)).filter((name) => name.endsWith('.profraw'))) {
    renameSync(join('crates', crate, name), join(counters, name))
  }
}
const profiles = readdirSync(counters).flatMap((name) => ['--instr-profile', join(counters, name)])
const objects = executables().flatMap((path) => ['--object', path])
const shown = spawnSync(tool, ['show', ...profiles, ...objects], { encoding: 'utf8', maxBuffer: 1 << 30 })
if (shown.status !== 0) throw new Error(shown.stderr)
writeFileSync(join(directory, 'crates.txt'), shown.stdout)
const report = table(parse(shown.stdout, process.cwd()))
writeFileSync(join(directory, 'crates-missed.txt'), `${report}\n`)
console.log(report)
