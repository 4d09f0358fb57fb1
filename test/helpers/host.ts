import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { remove } from './remove.ts'

const directories: string[] = []
process.on('exit', () => {
  // The supervisor lives as long as this process, and may be at work in the first, its state directory.
  for (const path of directories.reverse()) remove(path)
})

/** A directory that is gone when the tests of this file are over. */
export function temporary(prefix = 'nsrs-test-'): string {
  const path = mkdtempSync(join(tmpdir(), prefix))
  directories.push(path)
  return path
}

/** Each test file has a state directory of its own, so that files can't disturb each other or the host. */
process.env.NSRS_STATE_DIR = join(temporary('nsrs-state-'), 'state')

const APPLETS =
  'sh cat echo env false grep head id ip kill ls mount printf ps pwd readlink seq sleep stty touch true tty umount wc yes'

/** A root file system of its own with BusyBox and nothing else. */
export function busybox(): string {
  const root = temporary('nsrs-root-')
  chmodSync(root, 0o755)
  for (const name of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'root']) mkdirSync(join(root, name))
  copyFileSync('/bin/busybox', join(root, 'bin/busybox'))
  for (const name of APPLETS.split(' ')) symlinkSync('busybox', join(root, 'bin', name))
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000:Ann:/home/ann:/bin/sh\n')
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nann:x:1000:\nusers:x:100:ann\n')
  return root
}

/** Open file descriptors of this process. */
export function openFiles(): number {
  return readdirSync('/proc/self/fd').length
}

/** Processes that are children of the supervisor of this process: its containers. */
export function containers(): string[] {
  return ofSupervisor().filter((line) => !line.endsWith(PREWARMED))
}

/** The processes of prewarmed containers. */
export function prewarmed(): string[] {
  return ofSupervisor().filter((line) => line.endsWith(PREWARMED))
}

const PREWARMED = ' nsrs-prewarmed'

function ofSupervisor(): string[] {
  const children = (pid: string | number) => {
    const args = ['-o', 'pid=,stat=,comm=', '--ppid', String(pid)]
    try {
      const lines = execFileSync('ps', args, { encoding: 'utf8' }).trim().split('\n').filter(Boolean)
      // What has ended is none, though nobody may have waited for it.
      return lines.filter((line) => !/^ *\d+ Z/.test(line))
    } catch {
      return []
    }
  }
  const supervisors = children(process.pid).filter((line) => !/ ps$/.test(line))
  return supervisors.flatMap((line) => children(line.trim().split(' ')[0] ?? ''))
}

/** Waits until something is so; false if it isn't within a time that a slow machine needs too. */
export async function until(isSo: () => boolean, milliseconds = 30_000): Promise<boolean> {
  const end = Date.now() + milliseconds
  while (!isSo()) {
    if (Date.now() > end) return false
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  return true
}
