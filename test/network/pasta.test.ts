// The network of a user without rights.

import { spawn } from 'node:child_process'
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { asUser, cli, has, isRoot, project, unless } from '../helpers/product.ts'

function noPasta(): string | undefined {
  if (!has('pasta')) return 'pasta is missing (Debian: passt)'
  const tun = statSync('/dev/net/tun', { throwIfNoEntry: false })
  if (!tun) return 'there is no /dev/net/tun'
  return (tun.mode & 0o006) === 0o006 ? undefined : '/dev/net/tun is closed to users'
}

unless(noPasta(), asUser, 'pasta connects a container to the host, and it is the default', async (t, place) => {
  const { stdout, stderr } = await place.nsrs([
    'run',
    '--',
    'sh',
    '-c',
    'ls /sys/class/net | wc -l; ip -4 route show default | wc -l',
  ])
  t.is(stdout, '2\n1\n', stderr)
})

unless(noPasta(), asUser, 'where no route leads out of the host there is no network by default', async (t, place) => {
  const alone = (...args: string[]) =>
    place.exec('unshare', ['--user', '--map-current-user', '--net', process.execPath, cli, 'run', ...args])
  const { code, stdout, stderr } = await alone('--', 'ls', '/sys/class/net')
  t.deepEqual([code, stdout], [0, 'lo\n'], stderr)
  // What is asked for is there or is an error.
  for (const asked of [
    ['--network', 'pasta'],
    ['-p', '8080:80'],
  ]) {
    const { code, stderr } = await alone(...asked, '--', 'true')
    t.is(code, 125, stderr)
    t.regex(stderr, /hint: .*default route/)
  }
})

unless(noPasta(), asUser, 'pasta publishes ports', async (t, place) => {
  const port = 20_000 + (process.pid % 10_000)
  const child = spawn(
    'setpriv',
    [
      ...(isRoot ? [`--reuid=${place.as.uid}`, `--regid=${place.as.gid}`, '--init-groups'] : []),
      '--',
      process.execPath,
      cli,
      'run',
      '--network',
      'pasta',
      '-p',
      `${port}:80`,
      '--',
      'sh',
      '-c',
      `(until ss -Htln | grep -q :80; do sleep 0.05; done; echo up) &
      exec socat -t5 TCP6-LISTEN:80,ipv6only=0,fork,reuseaddr 'SYSTEM:"read -r question; echo pasta"'`,
    ],
    {
      env: {
        PATH: process.env.PATH,
        HOME: place.as.home,
        NSRS_STATE_DIR: place.state,
        NSRS_TEST_RUN: process.env.NSRS_TEST_RUN,
      },
      cwd: '/',
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  t.teardown(() => child.kill())
  await new Promise((resolve) => child.stdout.once('data', resolve))
  for (const address of [`TCP:127.0.0.1:${port}`, `TCP6:[::1]:${port}`]) {
    const { stdout } = await place.exec('sh', ['-c', `echo | socat -t20 -T20 - ${address} 2>&1`])
    t.is(stdout.trim(), 'pasta', address)
  }
})

unless(noPasta(), asUser, 'a port that pasta could not take is refused, with the reason', async (t, place) => {
  // In one address family only: pasta itself would be content with the other.
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '0.0.0.0', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as AddressInfo
  for (const [publish, why] of [
    [`${port}:80`, new RegExp(`port ${port}/tcp of the host is in use`)],
    [`127.0.0.1:${port}:80`, new RegExp(`port ${port}/tcp of the host is in use`)],
    ['192.0.2.200:8080:80', /the host has no address 192\.0\.2\.200/],
    ['80:80', /hint: .*ip_unprivileged_port_start/],
  ] as const) {
    const { code, stderr } = await place.nsrs(['run', '--network', 'pasta', '-p', publish, '--', 'true'])
    t.is(code, 125, stderr)
    t.regex(stderr, why)
  }
})

unless(noPasta(), asUser, 'pasta connects a container whose root is none of the caller', async (t, place) => {
  const [, first] = readFileSync('/etc/subuid', 'utf8').match(new RegExp(`^${place.as.name}:(\\d+):`, 'm')) ?? []
  const maps = ['--uidmap', `0:${first}:10`, '--gidmap', `0:${first}:10`]
  const { stdout, stderr } = await place.nsrs(['run', ...maps, '-w', '/', '--', 'ls', '/sys/class/net'])
  t.is(stdout, 'eth0\nlo\n', stderr)
})

unless(noPasta(), asUser, 'pasta is given free ports where none is named, and they are told', async (t, place) => {
  const ports = ['-p', '80', '-p', '127.0.0.1::81', '-p', '82/udp']
  const { stdout, stderr, code } = await place.nsrs(['run', '--network', 'pasta', ...ports, '--', 'echo', 'up'])
  t.deepEqual([code, stdout], [0, 'up\n'], stderr)
  t.regex(stderr, /^nsrs: published \d+:80\/tcp, 127\.0\.0\.1:\d+:81\/tcp, \d+:82\/udp$/m)
  const serve = 'exec socat -t5 TCP-LISTEN:80 "SYSTEM:read -r question; echo pasta"'
  const script = `
    import { spawn } from ${JSON.stringify(join(project, 'dist/index.js'))}
    import { connect } from 'node:net'
    const p = spawn('sh', ['-c', ${JSON.stringify(serve)}], { network: 'pasta', publish: ['80'], stdout: 'ignore' })
    const { ports: [port] } = await p.ready
    const ask = () => connect(Number(port.split(':')[0]), '127.0.0.1').on('data', (text) => {
      process.stdout.write(text)
      p.kill(9)
    }).on('error', () => {}).on('close', () => p.killed || setTimeout(ask, 100)).write('?\\n')
    ask()
    await p.wait()`
  const asked = await place.exec(process.execPath, ['--input-type=module', '-e', script], { timeout: 30_000 })
  t.is(asked.stdout, 'pasta\n', asked.stderr)
})

unless(noPasta(), asUser, 'a pasta that hangs or fails is named, with what it said', async (t, place) => {
  for (const [script, why] of [
    ['exec sleep 60', /pasta: it did not end within 5 s, and was killed/],
    ['echo "cannot load libx.so" >&2; exit 127', /pasta: cannot load libx\.so\nhint: /],
    ['exit 3', /pasta: it said nothing and ended with exit status: 3\n/],
  ] as const) {
    writeFileSync(join(place.dir, 'pasta'), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
    chmodSync(join(place.dir, 'pasta'), 0o755)
    const env = { PATH: `${place.dir}:${process.env.PATH}` }
    const { code, stderr } = await place.nsrs(['run', '--network', 'pasta', '--', 'true'], { env })
    t.is(code, 125, stderr)
    t.regex(stderr, why)
  }
})
