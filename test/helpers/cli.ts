import { type SpawnSyncOptionsWithStringEncoding, spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import './host.ts'

/** The bundled CLI. */
export const cli = fileURLToPath(new URL('../../dist/cli.cjs', import.meta.url))

/** Runs `nsrs` to its end. */
export function nsrs(args: readonly string[], options: Partial<SpawnSyncOptionsWithStringEncoding> = {}) {
  const { stdout, stderr, status, signal } = spawnSync(cli, args, {
    timeout: 60_000,
    ...options,
    encoding: 'utf8',
  })
  return { stdout, stderr, status, signal }
}
