// Somebody inside one container changes the tree that others are just made of (CVE-2021-30465, CVE-2025-31133 and kin).

import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { snapshot } from '../helpers/canary.ts'
import { asEach, type Job, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

const SECRET = 'the canary is on the host'
const SECONDS = 3
/** renameat2(2), which can exchange two names at once. */
const RENAMEAT2 = { x64: 316, arm64: 276 }[process.arch as 'x64' | 'arm64']
const SWAPPED = ['etc', 'dev', 'proc', 'work', 'mnt', 'mnt/volume', 'etc/hosts', 'etc/passwd']

unless(
  noBusybox(),
  asEach,
  'a neighbour who swaps paths for links while containers start leads none of them out',
  async (t, place) => {
    const rootfs = busyboxRoot(place)
    const canary = place.make('canary')
    for (const name of ['file', 'passwd', 'hosts', 'made']) {
      writeFileSync(join(canary, name), `${SECRET}\n`)
      place.own(join(canary, name))
    }
    mkdirSync(join(rootfs, 'mnt/volume'), { recursive: true })
    place.own(join(rootfs, 'mnt'))
    place.own(join(rootfs, 'mnt/volume'))
    writeFileSync(join(rootfs, 'etc/hosts'), '')
    place.own(join(rootfs, 'etc/hosts'))
    for (const path of SWAPPED)
      symlinkSync(/hosts|passwd/.test(path) ? join(canary, 'file') : canary, join(rootfs, `${path}-`))
    place.make('volume')
    const before = snapshot(canary)

    const loop = `$SIG{TERM} = sub { print $n; exit }; while (1) { for (qw(${SWAPPED.join(' ')})) { $n++ if 0 == syscall(${RENAMEAT2}, -100, "/shared/$_", -100, "/shared/$_-", 2); } }`
    const controller = new AbortController()
    const neighbours = [0, 1].map(() =>
      place.run(['-v', `${rootfs}:/shared`, '-w', '/', '--timeout', String(SECONDS + 100), '--', 'perl', '-e', loop], {
        started: (pid) => controller.signal.addEventListener('abort', () => process.kill(pid, 'SIGTERM')),
      }),
    )
    const script =
      'exec 2>&1; cat /etc/passwd /etc/hosts /mnt/volume/file /mnt/file /work/file ./file; echo evil > /mnt/volume/evil; echo evil > ./evil; cat /proc/self/mountinfo; pwd'
    const job: Job = {
      command: '/bin/sh',
      args: ['-c', script],
      options: {
        rootfs: { dir: rootfs },
        workdir: '/work',
        user: 'root',
        addHosts: ['a:192.0.2.1'],
        volumes: [`${join(place.dir, 'volume')}:/mnt/volume/deep`],
        tmpfs: ['/work/tmp'],
        timeout: 60_000,
      },
    }
    const until = Date.now() + SECONDS * 1000
    const done = []
    while (Date.now() < until)
      done.push(
        ...(await place.batch(
          Array.from({ length: 40 }, () => job),
          { together: 2 },
        )),
      )
    controller.abort()
    const swaps = (await Promise.all(neighbours)).reduce((sum, { stdout }) => sum + Number(stdout), 0)

    t.true(swaps > 10_000, `the neighbours swapped too little: ${swaps}`)
    for (const { stdout, code } of done) {
      t.false(stdout.includes(SECRET), stdout)
      const mounts = stdout.split('\n').filter((line) => / - \w+ /.test(line))
      t.false(
        mounts.some((line) => line.split(' ')[3]?.includes('/canary')),
        stdout,
      )
      if (code) t.regex(code, /^ERR_NSRS_/)
    }
    t.deepEqual(snapshot(canary), before)
    const ran = done.filter(({ code }) => code === undefined).length
    t.log(`${done.length} starts, ${ran} of them ran, during ${swaps} swaps`)
    t.true(done.length >= 40)
  },
)
