// Everything that reads the code and runs none of it. Tells all that is wrong, not the first thing only. Clippy compiles what
// the tests need on the way.

import { spawnSync } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import { linting } from './crates.mjs'

const checks = [
  ['cargo', 'fmt', '--check'],
  ['cargo', 'build', '--workspace', '--all-targets', '--quiet', '--keep-going'],
  // No part of the workspace, but with its versions; nightly is needed to run them only.
  'cargo check --quiet --no-default-features --manifest-path fuzz/Cargo.toml --target-dir target'.split(' '),
  ['npx', 'biome', 'check', '--error-on-warnings', '.'],
  ['npx', 'tsc', '-p', '.'],
  ['npx', 'knip'],
  ['npx', 'attw', '--pack', '.', '--profile', 'esm-only'],
]

copyFileSync('Cargo.lock', 'fuzz/Cargo.lock')
let failed = 0
for (const [command, ...args] of checks) {
  console.log(`── ${[command, ...args].join(' ')}`)
  if (spawnSync(command, args, { stdio: 'inherit', env: { ...process.env, ...linting } }).status !== 0) failed++
}

console.log('── publint')
const { messages, pkg } = await publint({ strict: true })
// It wants Node named in the first line; the CLI's is a shell's, which tsup.config.ts gives the reason for.
for (const message of messages.filter(({ code }) => code !== 'BIN_FILE_NOT_EXECUTABLE')) {
  console.log(formatMessage(message, pkg))
  failed++
}
process.exit(failed === 0 ? 0 : 1)
