// Builds everything, or only the part that is named: `native` (addon and executables), `ts` (library and CLI).
// For another target than this machine's: NSRS_TARGET=aarch64-unknown-linux-gnu.

import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, renameSync } from 'node:fs'

const executables = ['nsrs-runtime', 'nsrs-image']
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
  // A cdylib can't be linked with crt-static where libc is glibc, and the executables must be, so that they run in any
  // root: the flag is given to them alone. With --target their artifacts stay apart.
  const flags = `CARGO_TARGET_${target.toUpperCase().replaceAll('-', '_')}_RUSTFLAGS`
  const packages = executables.flatMap((name) => ['-p', name])
  run('cargo', ['build', '--release', ...packages, '--target', target, '--target-dir', 'target/static'], {
    [flags]: '-C target-feature=+crt-static',
  })
  for (const name of executables) {
    const file = `${directory}/${name}`
    copyFileSync(`target/static/${target}/release/${name}`, `${file}.new`)
    chmodSync(`${file}.new`, 0o755)
    renameSync(`${file}.new`, file)
  }

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
