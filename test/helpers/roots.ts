// Root file systems for tests.

import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { has, isRoot, type Place } from './product.ts'

/** Why there can be no BusyBox root; `undefined` if there can. */
export function noBusybox(): string | undefined {
  if (!has('busybox')) return 'busybox is missing (Debian: busybox-static)'
  const { stdout } = spawnSync('sh', ['-c', 'ldd "$(command -v busybox)" 2>&1'], { encoding: 'utf8' })
  return /not a dynamic/.test(stdout) ? undefined : 'busybox is not static (Debian: busybox-static)'
}

let applets: string[] | undefined
let program: string | undefined

/** A BusyBox root, owned by the place's identity. `etc: false` leaves /etc out, `dirs` are made beside. */
export function busyboxRoot(place: Place, name = 'root', { bare = false } = {}): string {
  program ??= spawnSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).stdout.trim()
  applets ??= spawnSync('busybox', ['--list'], { encoding: 'utf8' })
    .stdout.split('\n')
    .filter((applet) => applet && applet !== 'busybox')
  const root = place.make(name)
  const own = (path: string) => {
    if (isRoot) chownSync(path, place.as.uid, place.as.gid)
  }
  for (const directory of ['bin', ...(bare ? [] : ['etc', 'tmp', 'root', 'proc', 'sys', 'dev', 'run', 'work'])]) {
    mkdirSync(join(root, directory))
    own(join(root, directory))
  }
  copyFileSync(program, join(root, 'bin/busybox'))
  chmodSync(join(root, 'bin/busybox'), 0o755)
  own(join(root, 'bin/busybox'))
  for (const applet of applets) symlinkSync('busybox', join(root, 'bin', applet))
  if (!bare) {
    chmodSync(join(root, 'tmp'), 0o1777)
    const files = {
      passwd: 'root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n',
      group: 'root:x:0:\nalice:x:1000:\naudio:x:29:alice\nvideo:x:44:alice,root\n',
    }
    for (const [file, text] of Object.entries(files)) {
      writeFileSync(join(root, 'etc', file), text)
      own(join(root, 'etc', file))
    }
  }
  return root
}
