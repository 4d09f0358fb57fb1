// Builds everything, or only the part that is named: `native` (addon and executable), `ts` (library and CLI).
// For another target than this machine's: NSRS_TARGET=aarch64-unknown-linux-gnu.

import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync } from 'node:fs'

const arches = { x64: 'x86_64', arm64: 'aarch64' }
const musl = !process.report.getReport().header.glibcVersionRuntime
const target = process.env.NSRS_TARGET ?? `${arches[process.arch]}-unknown-linux-${musl ? 'musl' : 'gnu'}`

/** Runs a command and ends with its exit code if it fails. */
function run(command, args, env = {}) {
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', env: { ...process.env, ...env } })
  if (error) throw error
  if (status !== 0) process.exit(status ?? 1)
}

function buildNative() {
  const [machine, , , abi] = target.split('-')
  const directory = `npm/linux-${machine === 'x86_64' ? 'x64' : 'arm64'}-${abi}`
  mkdirSync(directory, { recursive: true })
  // A cdylib can't be linked with crt-static where libc is glibc, and the executable must be, so that it runs in any
  // root: the flag is given to the executable alone. With --target their artifacts stay apart.
  const flags = `CARGO_TARGET_${target.toUpperCase().replaceAll('-', '_')}_RUSTFLAGS`
  run('cargo', ['build', '--release', '-p', 'nsrs-runtime', '--target', target, '--target-dir', 'target/static'], {
    [flags]: '-C target-feature=+crt-static',
  })
  const executable = `target/static/${target}/release/nsrs-runtime`
  copyFileSync(executable, `${directory}/nsrs-runtime.new`)
  chmodSync(`${directory}/nsrs-runtime.new`, 0o755)
  run('mv', [`${directory}/nsrs-runtime.new`, `${directory}/nsrs-runtime`])

  const cross = process.env.NSRS_TARGET ? ['--target', target] : []
  const dts = ['--dts', '../../ts/binding.d.ts', '--no-const-enum', '--no-dts-cache']
  const addonFlags = abi === 'musl' ? { [flags]: '-C target-feature=-crt-static' } : {}
  run(
    'npx',
    [
      'napi',
      'build',
      '--release',
      '-p',
      'nsrs-node',
      '--manifest-path',
      'crates/node/Cargo.toml',
      '--no-js',
      ...dts,
    ].concat(['--output-dir', directory], cross),
    addonFlags,
  )
}

function buildTypeScript() {
  run('npx', ['tsup'])
}

const part = process.argv[2]
if (part !== 'ts') buildNative()
if (part !== 'native') buildTypeScript()
