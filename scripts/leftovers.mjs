// What the tests must not leave behind on the host. Others may run containers of their own meanwhile: what belongs to a
// living process that is not of this run is theirs, and what is gone within two seconds was on its way.

import { spawnSync } from 'node:child_process'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** Names in a directory; none where there is no such directory, or none for us. */
function list(directory, options = {}) {
  try {
    return readdirSync(directory, options)
  } catch {
    return []
  }
}

function read(path) {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

function inode(path) {
  return statSync(path, { throwIfNoEntry: false })?.ino
}

const pids = () => list('/proc').filter((name) => /^\d+$/.test(name))
const isRuntime = (pid) => /^\S*nsrs-runtime\0/.test(read(`/proc/${pid}/cmdline`))

function filesBelow(directory) {
  return list(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name)
    return entry.isDirectory() ? filesBelow(path) : [path]
  })
}

function cgroups(directory = '/sys/fs/cgroup') {
  return list(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name }) => [join(directory, name), ...cgroups(join(directory, name))])
}

/** Everything there is, by kind. `run` stands in the environment of every process of this run of the tests. */
function census(run) {
  const isOfThisRun = (pid) => read(`/proc/${pid}/environ`).includes(`=${run}\0`)
  // Names that hold the number of the process that made them.
  const isTheirs = (name) => {
    const pid = /-(\d+)(-|$)/.exec(name)?.[1] ?? /^(\d+)-/.exec(name)?.[1]
    return pid !== undefined && pids().includes(pid) && !isOfThisRun(pid)
  }
  const tables = spawnSync('/usr/sbin/nft', ['list', 'tables'], { encoding: 'utf8' }).stdout ?? ''
  const uids = ['root', 'tester'].map((name) => spawnSync('id', ['-u', name], { encoding: 'utf8' }).stdout.trim())
  const states = ['/run/nsrs', ...[...uids, process.getuid()].map((uid) => `/tmp/nsrs-${uid}`)]
  // Whoever uses the bridge of the host holds locks; then its links and addresses are not known to be ours.
  const held = read('/proc/locks').matchAll(/ (\d+) \S+:(\d+) \d+ EOF$/gm)
  const theirLocks = new Set([...held].flatMap(([, pid, inode]) => (isOfThisRun(pid) ? [] : [Number(inode)])))
  const bridgeIsTheirs = filesBelow('/run/nsrs/net').some((path) => theirLocks.has(inode(path)))
  // An init has the environment of its container, and never another parent than a supervisor that lives.
  const isOrphan = (pid) => {
    const parent = /^PPid:\t(\d+)/m.exec(read(`/proc/${pid}/status`))?.[1]
    return isRuntime(pid) && read(`/proc/${pid}/cmdline`).includes('\0init\0') && !isRuntime(parent)
  }
  return {
    links: list('/sys/class/net').filter((name) => /nsrs|veth|^ns[0-9a-f]{8}$/.test(name) && !bridgeIsTheirs),
    mounts: read('/proc/self/mountinfo')
      .split('\n')
      .filter((line) => line.includes('nsrs') && !line.includes(' /run/netns/')),
    processes: pids()
      .filter((pid) => pid !== String(process.pid) && (isOfThisRun(pid) || isOrphan(pid)))
      .map((pid) => `${pid} ${read(`/proc/${pid}/cmdline`).replaceAll('\0', ' ')}`),
    'nftables tables': tables
      .split('\n')
      .map((line) => line.replace(/^table /, ''))
      .filter((name) => name.includes('nsrs') && !isTheirs(name)),
    'network namespaces': list('/run/netns').filter((name) => name.startsWith('nsrs-') && !isTheirs(name)),
    // The lock of the bridges can't be removed without a race, and stays.
    'files of the state directory': states
      .flatMap(filesBelow)
      .filter((path) => !(path.endsWith('/net/lock') || (path.startsWith('/run/nsrs/net/') && bridgeIsTheirs)))
      .filter((path) => !isTheirs(path.split('/').at(-1))),
    cgroups: cgroups().filter((path) => path.includes('nsrs')),
    // tsx keeps what it compiled.
    'temporary files': list(run, { recursive: true }).filter((path) => path.startsWith('nsrs-')),
  }
}

/** Begins to watch; the result tells by kind what came since and stays. */
export function watch(run) {
  const before = census(run)
  return async () => {
    let left = {}
    // From the first look on things can only go: what appears later is the work of others.
    let since = before
    for (let look = 0; look < 20; look++) {
      const now = census(run)
      left = Object.fromEntries(
        Object.entries(now).map(([kind, items]) => [
          kind,
          items.filter((item) => (look === 0 ? !since[kind].includes(item) : since[kind].includes(item))),
        ]),
      )
      if (Object.values(left).every((items) => items.length === 0)) break
      since = left
      await sleep(100)
    }
    return left
  }
}
