// The executable of nsrs is out of reach from inside (CVE-2019-5736).

import { createHash } from 'node:crypto'
import { chmodSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { asEach, project, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

function hashes(): string[] {
  const packages = join(project, 'npm')
  const binaries = readdirSync(packages).flatMap((name) =>
    ['nsrs-runtime', 'nsrs.node'].map((file) => join(packages, name, file)),
  )
  return binaries.flatMap((path) => {
    try {
      return [`${path} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`]
    } catch {
      return []
    }
  })
}

/** Tries to write to every executable that /proc shows, whether it is idle or runs. */
const OVERWRITE = `
  for exe in /proc/[0-9]*/exe; do
    case "$(readlink $exe)" in *busybox*) continue ;; esac
    if { true >>"$exe"; } 2>/dev/null; then echo "opened $exe"; fi
    cp /bin/evil "$exe" 2>/dev/null && echo "overwrote $exe"
    truncate -s 0 "$exe" 2>/dev/null && echo "truncated $exe"
    chmod 666 "$exe" 2>/dev/null && echo "took the right to execute $exe"
  done
  echo done`

unless(noBusybox(), asEach, "the init's executable can't be written to by root inside", async (t, place) => {
  const rootfs = busyboxRoot(place)
  writeFileSync(join(rootfs, 'bin/evil'), '#!/bin/sh\n')
  const before = hashes()
  t.true(before.length > 0)
  const jobs = [{}, { capAdd: ['SYS_ADMIN', 'SYS_PTRACE', 'DAC_READ_SEARCH'] }, {}].map((options) => ({
    command: 'sh',
    args: ['-c', OVERWRITE],
    options: { rootfs: { dir: rootfs }, init: true, ...options },
  }))
  for (const done of await place.batch(jobs)) {
    t.is(done.message, undefined)
    t.notRegex(done.stdout, /opened|overwrote|truncated|took/, done.stdout)
    t.regex(done.stdout, /done$/)
  }
  t.deepEqual(hashes(), before)
  // It still runs, and runs what it should.
  t.is(await place.output(['--rootfs', rootfs, '--init', 'echo', 'fine']), 'fine')
})

unless(
  noBusybox(),
  asEach,
  'an entry point that is /proc/self/exe gets no executable that it could change',
  async (t, place) => {
    const rootfs = busyboxRoot(place)
    writeFileSync(join(rootfs, 'entry'), '#!/proc/self/exe\n')
    chmodSync(join(rootfs, 'entry'), 0o755)
    symlinkSync('/proc/self/exe', join(rootfs, 'link'))
    const before = hashes()
    for (const command of ['/entry', '/link', '/proc/self/exe', '/proc/1/exe']) {
      for (const init of [[], ['--init']]) {
        // The file it runs is the sealed copy: it tells its version at most.
        const { stderr } = await place.run(['--rootfs', rootfs, ...init, command, '--version'])
        t.notRegex(stderr, /panicked/, command)
      }
    }
    t.deepEqual(hashes(), before)
  },
)

unless(noBusybox(), asEach, "the init's channel to its supervisor is out of the command's reach", async (t, place) => {
  const rootfs = busyboxRoot(place)
  const script =
    'readlink /proc/1/fd/*; ls -l /proc/1/exe /proc/1/cwd 2>&1; cat /proc/1/maps 2>&1; kill -0 1 && echo done'
  const [done] = await place.batch([
    { command: 'sh', args: ['-c', script], options: { rootfs: { dir: rootfs }, init: true } },
  ])
  t.notRegex(done?.stdout ?? '', /memfd|socket|nsrs/, done?.stdout)
  t.is(done?.stdout.match(/[Pp]ermission denied/g)?.length, 3, done?.stdout)
  t.regex(done?.stdout ?? '', /done$/)
})

asEach('a pipe in the place of an executable is refused at once', async (t, place) => {
  const directory = place.make('native')
  const [own] = readdirSync(join(project, 'npm')).filter((name) => name.startsWith(`linux-${process.arch}`))
  symlinkSync(join(project, 'npm', own as string, 'nsrs.node'), join(directory, 'nsrs.node'))
  for (const name of ['nsrs-runtime', 'nsrs-image']) await place.exec('mkfifo', ['-m', '755', join(directory, name)])
  const options = { env: { NSRS_NATIVE_DIR: directory }, timeout: 20_000 }
  for (const args of [['run', '--network', 'none', '--', 'true'], ['info'], ['images']]) {
    const { code, stderr } = await place.nsrs(args, options)
    t.is(code, 125, stderr)
    t.regex(stderr, /nsrs-(runtime|image): it is no regular file/)
  }
})
