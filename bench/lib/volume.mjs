import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'

/** Sparse: so large that trees need never be removed while it is measured. */
const SIZE = '16G'

/**
 * An ext4 of its own in a file, mounted, as mkfs.ext4 makes it. The one below may have no journal, as in small virtual machines:
 * then ext4 passes over every inode that was removed in the last minutes before it takes one, so that each round would slow the
 * next one several times, and with `discard` it waits for the disk with every directory that is removed.
 */
export function makeVolume(directory, name) {
  const [file, mountPoint] = [join(directory, `${name}.img`), join(directory, name)]
  mkdirSync(mountPoint)
  execFileSync('truncate', ['-s', SIZE, file])
  execFileSync('mkfs.ext4', ['-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', file])
  execFileSync('mount', ['-o', 'loop', file, mountPoint])
  const remove = () => {
    try {
      execFileSync('umount', ['-l', mountPoint], { stdio: 'ignore' })
    } catch {
      // It was removed before.
    }
    rmSync(file, { force: true })
  }
  // Before the directory is removed.
  process.prependListener('exit', remove)
  return {
    path: mountPoint,
    remove() {
      process.off('exit', remove)
      remove()
    },
  }
}
