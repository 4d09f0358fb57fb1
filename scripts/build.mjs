// Builds everything, or only the part that is named: `native` (addon and executables), `ts` (library and CLI).
// For another target than this machine's: NSRS_TARGET=aarch64-unknown-linux-gnu.

import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'

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

/** All in one go of Cargo, which builds what they share once. */
function buildNative() {
  const [machine, , , abi] = target.split('-')
  const directory = `npm/linux-${machine === 'x86_64' ? 'x64' : 'arm64'}-${abi}`
  mkdirSync(directory, { recursive: true })
  const addon = [
    '--release',
    '-p',
    'nsrs-node',
    '--manifest-path',
    'crates/node/Cargo.toml',
    '--target',
    target,
    '--target-dir',
    'target',
  ]
  const files = ['--no-js', '--dts', '../../ts/binding.d.ts', '--no-const-enum', '--no-dts-cache']
  const others = executables.flatMap((name) => ['-p', name])
  run('npx', ['napi', 'build', ...addon, ...files, '--output-dir', directory, '--', ...others], {
    RUSTC_WORKSPACE_WRAPPER: join(import.meta.dirname, 'rustc.sh'),
  })
  for (const name of executables) {
    const file = `${directory}/${name}`
    copyFileSync(`target/${target}/release/${name}`, `${file}.new`)
    chmodSync(`${file}.new`, 0o755)
    renameSync(`${file}.new`, file)
  }
}

function buildTypeScript() {
  run('npx', ['tsup'])
}

const part = process.argv[2]
if (part !== 'ts') buildNative()
if (part !== 'native') buildTypeScript()
