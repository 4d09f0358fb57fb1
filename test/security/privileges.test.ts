// No way to more rights: set-user-ID programs, devices, nested namespaces, kernel parameters.

import { chmodSync, copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { asEach, asRoot, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

asRoot('a set-user-ID program gains nothing, and everything when that is asked for', async (t, place) => {
  chmodSync(place.dir, 0o755)
  copyFileSync('/bin/grep', join(place.dir, 'suid'))
  chmodSync(join(place.dir, 'suid'), 0o4755)
  const run = ['-u', '1000:1000', './suid', '-E', '^(Uid|CapEff)', '/proc/self/status']
  t.regex(await place.output(run), /^Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0{16}/)
  t.regex(await place.output(['--allow-new-privileges', ...run]), /^Uid:\t1000\t0\t0\t0/, 'the program would be one')
})

asEach('nothing can be mounted by a program of the host that may', async (t, place) => {
  const other = place.as.uid === 0 ? ['-u', '65534:65534'] : []
  const { stdout } = await place.run(
    [...other, '--', 'sh', '-c', 'mount -t tmpfs x /mnt && echo mounted; grep NoNewPrivs /proc/self/status'],
    { cwd: '/' },
  )
  t.is(stdout.trim(), 'NoNewPrivs:\t1')
})

unless(noBusybox(), asEach, 'no device of the host can be made or opened', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const script = `
    for node in 'b 254 0' 'b 8 0' 'b 259 0' 'c 1 1' 'c 10 200' 'c 1 11'; do
      mknod /made $node 2>/dev/null && echo "made $node" && head -c 1 /made >/dev/null && echo "read $node"; rm -f /made
      mknod /dev/made $node 2>/dev/null && echo "made $node in /dev" && head -c 1 /dev/made >/dev/null && echo "read $node in /dev"; rm -f /dev/made
    done
    ls /dev | tr '\\n' ' '`
  const [done] = await place.batch([{ command: 'sh', args: ['-c', script], options: { rootfs: { dir: rootfs } } }])
  t.is(done?.stdout.trim(), 'fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero')
})

unless(noBusybox(), asEach, 'a nested user namespace unmasks nothing and loosens no mount', async (t, place) => {
  const rootfs = busyboxRoot(place)
  const script = `
    unshare -Urm sh -c '
      for path in /proc/keys /proc/interrupts /proc/timer_list /proc/acpi /proc/sys /sys/firmware /sys /dev /etc/hosts; do umount $path 2>/dev/null && echo "unmounted $path"; umount -l $path 2>/dev/null && echo "detached $path"; done
      mount -o remount,rw,bind /proc/sys 2>/dev/null && echo "made /proc/sys writable"
      mount -o remount,rw,bind /sys 2>/dev/null && echo "made /sys writable"
      mkdir -p /tmp/p; mount -t proc proc /tmp/p 2>/dev/null && echo "mounted proc"
      mount -t sysfs sysfs /tmp/p 2>/dev/null && echo "mounted sysfs"
      mount --bind /proc /tmp/p 2>/dev/null && echo "bound proc without its masks"
      echo nested'
    unshare -Urmpf sh -c 'mkdir -p /tmp/q; mount -t proc proc /tmp/q 2>/dev/null && cat /tmp/q/keys && echo "mounted a proc of its own"; echo nested'`
  const options = { rootfs: { dir: rootfs }, tmpfs: ['/tmp'] }
  const [done] = await place.batch([{ command: 'sh', args: ['-c', script], options }])
  t.regex(done?.stdout ?? '', /^nested\nnested$/, `${done?.stdout} ${done?.stderr}`)
})

asEach('kernel parameters of the host are out of reach', async (t, place) => {
  const keys = ['kernel/core_pattern', 'kernel/sysrq', 'vm/drop_caches', 'fs/file-max', 'kernel/modprobe']
  const read = () =>
    keys.map((key) => {
      try {
        return readFileSync(`/proc/sys/${key}`, 'utf8')
      } catch {
        return ''
      }
    })
  const before = read()
  for (const key of keys) {
    const { code, stderr } = await place.run(['--sysctl', `${key.replaceAll('/', '.')}=1`, 'true'])
    t.is(code, 125)
    t.regex(stderr, new RegExp(`--sysctl.*${key.replaceAll('/', '.')}.*whole host`))
  }
  for (const key of [
    'net/../kernel/core_pattern',
    'net..kernel.core_pattern',
    'net/ipv4/../../kernel/core_pattern',
    '/proc/sys/kernel/core_pattern',
    'net./../kernel.core_pattern',
  ]) {
    t.is((await place.run(['--sysctl', `${key}=|/tmp/evil`, 'true'])).code, 125, key)
  }
  const script = `for key in ${keys.join(' ')}; do { echo 1 > /proc/sys/$key; } 2>&1; done; { echo b > /proc/sysrq-trigger; } 2>&1; :`
  const out = await place.output(['sh', '-c', script])
  t.is(out.split('\n').length, keys.length + 1, out)
  t.deepEqual(read(), before)
})

unless(
  noBusybox(),
  asEach,
  "a parameter of the container's own namespace is set there and nowhere else",
  async (t, place) => {
    const before = readFileSync('/proc/sys/net/ipv4/ip_default_ttl', 'utf8')
    t.is(
      await place.output(['--sysctl', 'net.ipv4.ip_default_ttl=33', 'cat', '/proc/sys/net/ipv4/ip_default_ttl']),
      '33',
    )
    // The kernel lets only the root of a user namespace set these, and on the host's tree a user is no root.
    const rootfs = ['--rootfs', busyboxRoot(place)]
    t.is(await place.output([...rootfs, '--sysctl', 'kernel.msgmax=4242', 'cat', '/proc/sys/kernel/msgmax']), '4242')
    t.is(readFileSync('/proc/sys/net/ipv4/ip_default_ttl', 'utf8'), before)
  },
)

asEach("no keyring of the caller's can be read, and no ring of system calls made", async (t, place) => {
  // keyctl(KEYCTL_GET_KEYRING_ID, session, no); io_uring_setup(1, NULL).
  const script = `
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
numbers = {'x86_64': (250, 425), 'aarch64': (219, 425)}[os.uname().machine]
for call, *args in ((numbers[0], 0, -3, 0), (numbers[1], 1, 0)):
    done = libc.syscall(call, *args)
    print('made' if done >= 0 else ctypes.get_errno())
`
  const outside = (await place.exec('/usr/bin/python3', ['-c', script])).stdout.split('\n')
  t.is(outside[0], 'made', 'there is one')
  t.is(await place.output(['/usr/bin/python3', '-c', script]), '1\n1')
})
