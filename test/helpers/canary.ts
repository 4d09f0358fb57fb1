// Proof that something was left alone: every byte and every fact of its inodes.

import { createHash } from 'node:crypto'
import { lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'

/** One line for every file of a tree: kind and mode, owner, times, inode, links, contents. */
export function snapshot(path: string): string[] {
  const stat = lstatSync(path, { bigint: true })
  const facts = [
    stat.mode.toString(8),
    stat.uid,
    stat.gid,
    stat.size,
    stat.mtimeNs,
    stat.ctimeNs,
    stat.ino,
    stat.nlink,
    stat.rdev,
  ]
  const contents = stat.isFile()
    ? createHash('sha256').update(readFileSync(path)).digest('hex')
    : stat.isSymbolicLink()
      ? readlinkSync(path)
      : ''
  const line = `${path} ${facts.join(' ')} ${contents}`
  return stat.isDirectory()
    ? [
        line,
        ...readdirSync(path)
          .sort()
          .flatMap((name) => snapshot(join(path, name))),
      ]
    : [line]
}
