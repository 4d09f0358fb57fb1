// Prewarmed containers: nobody may notice them but by the time they save.

import { execFile, spawn as spawnBare } from 'node:child_process'
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import test from 'ava'
import { run, spawn } from '../../ts/index.ts'
import { busybox, containers, prewarmed, temporary, until } from '../helpers/host.ts'
import { number, prewarm } from '../helpers/prewarm.ts'
import { isRoot } from '../helpers/product.ts'
import { skip } from '../helpers/skips.ts'

const driver = join(import.meta.dirname, '../helpers/prewarmed-driver.mjs')
const fresh = () => ({ rootfs: busybox(), network: 'none' }) as const

test.serial('a container that is asked for again and again is prewarmed, once', async (t) => {
  const box = fresh()
  const pid = await prewarm(box)
  const { stdout, container } = await run('sh', ['-c', 'echo $$'], box)
  t.is(container?.pid, pid)
  t.is(stdout, '1')
  t.true(await until(() => prewarmed().length > 0))
  t.true(await until(() => containers().length === 0), containers().join())
})

test.serial('it gets what the request says, and nothing of requests before', async (t) => {
  const box = fresh()
  const secret = { env: { SECRET: 'before' }, input: 'before', user: 'ann', umask: '077' }
  const pid = await prewarm({ ...box, ...secret })
  const look = 'id -u; pwd; umask; ulimit -n; cat; env; ls /proc/self/fd | wc -l; grep NoNewPrivs /proc/self/status'
  const own = { env: { OWN: 'now' }, input: 'now', workdir: '/tmp', ulimits: ['nofile=77'] }
  const one = await run('sh', ['-c', look], { ...box, ...own })
  t.is(one.container?.pid, pid)
  t.false(one.stdout.includes('before'), one.stdout)
  const other = await run('sh', ['-c', look], { ...box, ...own, hostname: 'other' })
  t.not(other.container?.pid, pid)
  t.is(one.stdout, other.stdout.replace('HOSTNAME=other', 'HOSTNAME=nsrs'))
})

test.serial('capabilities belong to the kind: the bounding set of a prewarmed one is cut down already', async (t) => {
  const box = fresh()
  const look = async (options: { capDrop?: string[] }) => {
    const { stdout } = await run('grep', ['Cap', '/proc/self/status'], { ...box, ...options })
    return stdout
  }
  const usual = await look({})
  await prewarm(box)
  t.is(await look({}), usual)
  await prewarm(box)
  const none = await look({ capDrop: ['ALL'] })
  t.true(/^(Cap\w+:\t0+\n?)+$/.test(none), none)
  await prewarm({ ...box, capDrop: ['ALL'] })
  t.is(await look({}), usual)
})

test.serial('descriptors that are passed come to their numbers', async (t) => {
  const box = fresh()
  const pid = await prewarm(box)
  const file = join(box.rootfs, 'file')
  writeFileSync(file, 'passed')
  const { openSync, closeSync } = await import('node:fs')
  const fd = openSync(file, 'r')
  const { stdout, container } = await run('sh', ['-c', 'cat <&9'], { ...box, fds: { 9: fd } })
  closeSync(fd)
  t.deepEqual([stdout, container?.pid], ['passed', pid])
})

test.serial('a command that is not there, a limit of time, an abort: all as ever', async (t) => {
  const box = fresh()
  await prewarm(box)
  await t.throwsAsync(run('/bin/nope', box), { code: 'ERR_NSRS_COMMAND_NOT_FOUND' })
  await prewarm(box)
  const late = await run('sleep', ['60'], { ...box, timeout: 100, reject: false })
  t.true(late.timedOut)
  await prewarm(box)
  const aborted = await run('sleep', ['60'], { ...box, signal: AbortSignal.timeout(100), reject: false })
  t.true(aborted.isCanceled)
})

test.serial('a command too long for the way to it gets a container of its own', async (t) => {
  const box = fresh()
  const pid = await prewarm(box)
  const { stdout, container } = await run('echo', ['x'.repeat(100_000)], box)
  t.is(stdout.length, 100_000)
  t.not(container?.pid, pid)
})

test.serial('a root that was replaced meanwhile is the new one', async (t) => {
  const box = fresh()
  const pid = await prewarm(box)
  const old = `${temporary()}/old`
  renameSync(box.rootfs, old)
  renameSync(busybox(), box.rootfs)
  writeFileSync(join(box.rootfs, 'new'), 'new')
  const { stdout, container } = await run('cat', ['/new'], box)
  t.is(stdout, 'new')
  t.not(container?.pid, pid)
  t.true(await until(() => !prewarmed().map(number).includes(pid)), 'the one of the old root has ended')
})

/** What may become of a root whose next container is made already, and what must be seen in it all the same. */
const changes: Record<string, [change: (root: string) => void, command: string, seen: string]> = {
  'its pseudo file systems': [
    (root) => {
      for (const name of ['proc', 'dev', 'sys']) {
        rmSync(join(root, name), { recursive: true })
        mkdirSync(join(root, name))
      }
    },
    'test -e /proc/self/mounts && test -c /dev/null && echo there',
    'there',
  ],
  'the target of a volume': [
    (root) => {
      rmSync(join(root, 'data'), { recursive: true })
      mkdirSync(join(root, 'data'))
      writeFileSync(join(root, 'data/file'), 'evil')
    },
    'cat /data/file',
    'own',
  ],
  'a directory above the target of a volume': [
    (root) => {
      renameSync(join(root, 'opt'), join(root, 'opt2'))
      mkdirSync(join(root, 'opt/data'), { recursive: true })
      writeFileSync(join(root, 'opt/data/file'), 'evil')
    },
    'cat /opt/data/file',
    'own',
  ],
  'its /etc': [
    (root) => {
      renameSync(join(root, 'etc'), join(root, 'etc2'))
      mkdirSync(join(root, 'etc'))
      writeFileSync(join(root, 'etc/hosts'), 'evil')
    },
    'grep -c localhost /etc/hosts',
    '2',
  ],
}
for (const [what, [change, command, seen]] of Object.entries(changes)) {
  test.serial(`a container of a root of which somebody replaced ${what} is as it must be`, async (t) => {
    const box = fresh()
    const volume = temporary()
    writeFileSync(join(volume, 'file'), 'own')
    const options = { ...box, volumes: [`${volume}:/data:ro`, `${volume}:/opt/data:ro`] }
    await run('true', options)
    await prewarm(options)
    change(box.rootfs)
    t.is((await run('sh', ['-c', command], options)).stdout, seen)
  })
}

test.serial('a target behind a link is looked up at the request', async (t) => {
  const box = fresh()
  const volume = temporary()
  mkdirSync(join(box.rootfs, 'real'))
  symlinkSync('real', join(box.rootfs, 'data'))
  const options = { ...box, volumes: [`${volume}:/data`] }
  for (let times = 0; times < 3; times++) await run('true', options)
  await new Promise((resolve) => setTimeout(resolve, 100))
  rmSync(join(box.rootfs, 'data'))
  mkdirSync(join(box.rootfs, 'other'))
  symlinkSync('other', join(box.rootfs, 'data'))
  writeFileSync(join(volume, 'file'), 'own')
  t.is((await run('cat', ['/data/file'], options)).stdout, 'own')
})

test.serial('a root may be removed as soon as its last command has ended', async (t) => {
  for (let round = 0; round < 30; round++) {
    const box = fresh()
    for (let times = 0; times < 2; times++) await run('true', box)
    await new Promise((resolve) => setTimeout(resolve, round % 6))
    t.notThrows(() => rmSync(box.rootfs, { recursive: true }))
  }
})

test.serial('signal 0 is none', async (t) => {
  const child = spawn('sleep', ['0.2'], fresh())
  await child.ready
  child.kill(0)
  t.is((await child.wait()).exitCode, 0)
})

test.serial('one that is killed is missed by nobody', async (t) => {
  const box = fresh()
  const pid = await prewarm(box)
  process.kill(pid, 'SIGKILL')
  t.true(await until(() => !prewarmed().map(number).includes(pid)))
  t.is((await run('echo', ['here'], box)).stdout, 'here')
})

test.serial("it holds nothing of the supervisor's but what it needs", async (t) => {
  const pid = await prewarm(fresh())
  const links = (of: number) => readdirSync(`/proc/${of}/fd`).map((fd) => readlinkSync(`/proc/${of}/fd/${fd}`))
  const parent = Number(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[1])
  const shared = links(pid).filter(
    (link) => links(parent).includes(link) && !/^(\/dev\/null|\/memfd:|pipe:)/.test(link),
  )
  // An anonymous inode has no name of its own: the pidfd of the supervisor.
  t.deepEqual(shared, ['anon_inode:[pidfd]'])
})

test.serial('at most eight kinds are kept', async (t) => {
  for (let kinds = 0; kinds < 10; kinds++) await prewarm(fresh())
  t.true(await until(() => prewarmed().length === 8), prewarmed().join())
})

test.serial('as many are kept as came at once, up to eight', async (t) => {
  const box = fresh()
  const before = prewarmed().length
  const requests = Array.from({ length: 12 }, (_, n) => `${n}`)
  const outputs = await Promise.all(requests.map((n) => run('echo', [n], box)))
  t.deepEqual(
    outputs.map(({ stdout }) => stdout),
    requests,
  )
  t.true(await until(() => prewarmed().length - before >= 8 || prewarmed().length >= 8), prewarmed().join())
})

test.serial('of all kinds together some thirty are kept, and one of each', async (t) => {
  const boxes = Array.from({ length: 6 }, fresh)
  for (const box of boxes) {
    await Promise.all(Array.from({ length: 12 }, () => run('true', box)))
    t.true(await until(() => prewarmed().length > 0))
  }
  t.true(await until(() => prewarmed().length >= 32), prewarmed().join())
  for (const box of boxes) {
    const standing = prewarmed().map(number)
    t.true(standing.length < 40, standing.join())
    const { container } = await run('true', box)
    t.true(standing.includes(container?.pid ?? 0), `${container?.pid} is none of ${standing.join()}`)
  }
})

test.serial('one that is still being made serves a request all the same', async (t) => {
  const box = fresh()
  for (let n = 0; n < 40; n++) t.is((await run('sh', ['-c', `echo ${n} $$`], box)).stdout, `${n} 1`)
  const late = await run('sleep', ['5'], { ...box, timeout: 200, reject: false })
  t.true(late.timedOut)
  t.true(await until(() => containers().length === 0), containers().join())
})

test.serial('kill -9 of Node ends it', async (t) => {
  const child = spawnBare(process.execPath, [driver, JSON.stringify(fresh()), 'wait'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [line] = await new Promise<string[]>((resolve) =>
    child.stdout.once('data', (data) => resolve(String(data).split('\n'))),
  )
  const pid = Number(line)
  t.true(pid > 0)
  child.kill('SIGKILL')
  const gone = () => {
    try {
      return !readFileSync(`/proc/${pid}/comm`, 'utf8').startsWith('nsrs')
    } catch {
      return true
    }
  }
  t.true(await until(gone))
})

const inNamespaces = (what: string, act: string, network: string, check: (out: string[]) => string | undefined) => {
  const title = `${what} (in namespaces of their own)`
  if (!isRoot) return skip(title, 'needs root')
  test.serial(title, async (t) => {
    const options = JSON.stringify({ rootfs: busybox(), network })
    const { stdout } = await promisify(execFile)('unshare', [
      '--net',
      '--mount',
      process.execPath,
      driver,
      options,
      act,
    ])
    const wrong = check(stdout.trim().split('\n'))
    t.is(wrong, undefined, stdout)
  })
}

inNamespaces('a mount made in the root meanwhile is there', 'mount', 'none', ([pid, own, said]) =>
  pid !== own && said === 'mounted' ? undefined : 'the old tree was used',
)
inNamespaces('a mount that holds the root is read-only by then', 'remount', 'none', ([pid, own, said]) =>
  pid !== own && said === 'refused' ? undefined : 'its old flags were used',
)
inNamespaces('mounts elsewhere do not concern it', 'mountElsewhere', 'none', ([pid, own, said]) =>
  pid === own && said === 'here' ? undefined : 'it was not used',
)
inNamespaces('it has its place on the bridge', 'plain', 'bridge', ([pid, own, said]) =>
  pid === own && /^inet 10\..*inet6 fd/.test(said ?? '') ? undefined : 'it is not connected',
)
