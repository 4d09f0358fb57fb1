import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { remove } from './remove.ts'

/** The environment with a store of images and a home of its own, which go with the test. */
export function imageStore(t: ExecutionContext): NodeJS.ProcessEnv & { NSRS_IMAGE_DIR: string } {
  const directory = mkdtempSync(join(tmpdir(), 'nsrs-images-'))
  t.teardown(() => remove(directory))
  return { ...process.env, HOME: directory, NSRS_IMAGE_DIR: join(directory, 'images') }
}
