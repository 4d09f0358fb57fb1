// What /proc and /sys tell of the host, and what they let one do to it (CVE-2025-31133, CVE-2018-10892, PLATYPUS, …).

import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { asEach, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

/** Podman's list (security.md §2), which is docker's with /sys/fs/selinux. */
const MASKED = [
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/sys/firmware',
  '/sys/fs/selinux',
  '/sys/devices/virtual/powercap',
  '/sys/dev/block',
]
const READ_ONLY = ['/proc/asound', '/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

unless(noBusybox(), asEach, 'masked paths tell nothing and read-only paths take nothing', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const script = `
    for path in ${MASKED.join(' ')} /sys/devices/system/cpu/cpu*/thermal_throttle; do
      [ -e $path ] || continue
      if [ -d $path ]; then [ -n "$(ls -A $path)" ] && echo "tells $path"; touch $path/x 2>/dev/null && echo "takes $path"
      else [ -n "$(head -c 1 $path 2>/dev/null | tr '\\0' x)" ] && echo "tells $path"; fi
    done
    for path in ${READ_ONLY.join(' ')}; do
      [ -e $path ] || continue
      awk -v path=$path '$5 == path { n++; if ($6 !~ /^ro,/) print "writable " path } END { if (!n) print "not mounted " path }' /proc/self/mountinfo
    done
    { echo x > /sys/kernel/uevent_seqnum; } 2>/dev/null && echo "takes /sys"
    { echo 0 > /proc/sys/net/ipv4/ip_forward; } 2>/dev/null && echo "takes /proc/sys"
    chmod 777 /proc/sys 2>/dev/null && echo "changes /proc/sys"
    echo done`
  // With more rights, too: a mask is no matter of permission.
  const jobs = [{}, { capAdd: ['SYS_PTRACE', 'DAC_READ_SEARCH', 'SYSLOG'] }, { init: true }, { readOnly: true }].map(
    (more) => ({
      command: 'sh',
      args: ['-c', script],
      options: { rootfs: { dir: rootfs }, ...more },
    }),
  )
  for (const done of await place.batch(jobs)) t.is(done.stdout, 'done', `${done.message} ${done.stderr}`)
  const present = MASKED.filter((path) => existsSync(path))
  t.log(`on this host there are ${present.join(' ')}`)
  t.true(present.length > 2)
})

unless(noBusybox(), asEach, "a mount of the caller's on /dev/null is no mask", async (t, place) => {
  const rootfs = busyboxRoot(place)
  const file = join(place.make('volume'), 'file')
  writeFileSync(file, 'believed')
  const script = 'cat /dev/null; for path in /proc/keys /proc/timer_list /proc/kcore; do cat $path; done 2>/dev/null'
  const { stdout, stderr } = await place.run(['--rootfs', rootfs, '-v', `${file}:/dev/null:ro`, 'sh', '-c', script])
  t.is(stdout, 'believed', stderr)
})

unless(noBusybox(), asEach, 'no mount covers /proc or /sys', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const volume = place.make('volume')
  for (const target of [
    '/proc',
    '/proc/self',
    '/proc/self/attr',
    '/proc/sys/kernel',
    '/proc/1',
    '/sys',
    '/sys/fs',
    '/proc/../proc',
    '/work/../proc/self',
  ]) {
    for (const option of [
      ['-v', `${volume}:${target}`],
      ['--tmpfs', target],
      ['--mount', `type=overlay,source=${volume},target=${target}`],
    ]) {
      const { code, stderr } = await place.run(['--rootfs', rootfs, ...option, 'true'])
      t.is(code, 125, `${option}`)
      t.true(stderr.includes(target), stderr)
    }
  }
})

unless(noBusybox(), asEach, 'a link in the root leads no mount onto /proc', async (t, place) => {
  const { symlinkSync } = await import('node:fs')
  const rootfs = busyboxRoot(place)
  const volume = place.make('volume')
  mkdirSync(join(rootfs, 'sub'))
  symlinkSync('/proc', join(rootfs, 'to-proc'))
  symlinkSync('../proc/self', join(rootfs, 'sub/to-self'))
  for (const target of ['/to-proc', '/to-proc/self', '/sub/to-self/attr']) {
    const { code, stderr } = await place.run(['--rootfs', rootfs, '-v', `${volume}:${target}`, 'true'])
    t.is(code, 125)
    t.regex(stderr, /\/proc|outside|link/, stderr)
  }
})

asEach("/proc shows the container's processes, on the host's tree as elsewhere", async (t, place) => {
  const pids = await place.output(['sh', '-c', 'echo /proc/[0-9]*'])
  t.is(pids, '/proc/1')
  const own = await place.output(['sh', '-c', 'cat /proc/1/comm; readlink /proc/self'])
  t.regex(own, /^sh\n\d$/)
})
