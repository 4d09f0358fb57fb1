import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'

/** The environment with a store of images and a home of its own, which go with the test. */
export function imageStore(t: ExecutionContext): NodeJS.ProcessEnv & { NSRS_IMAGE_DIR: string } {
  const directory = mkdtempSync(join(tmpdir(), 'nsrs-images-'))
  t.teardown(() => {
    // Files of the ids of a range are removed as their root.
    const [program = '', ...args] = ['rm', '-rf', directory]
    if (process.getuid?.() === 0) rmSync(directory, { recursive: true, force: true })
    else spawnSync('unshare', ['--user', '--map-root-user', '--map-auto', program, ...args], { stdio: 'inherit' })
  })
  return { ...process.env, HOME: directory, NSRS_IMAGE_DIR: join(directory, 'images') }
}
