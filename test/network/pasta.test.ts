// The network of a user without rights.

import { spawn } from 'node:child_process'
import { chmodSync, statSync } from 'node:fs'
import { asUser, cli, has, isRoot, unless } from '../helpers/product.ts'

function noPasta(): string | undefined {
  if (!has('pasta')) return 'pasta is missing (Debian: passt)'
  const tun = statSync('/dev/net/tun', { throwIfNoEntry: false })
  if (!tun) return 'there is no /dev/net/tun'
  // As on a desktop: udev gives it to everybody.
  if (isRoot && (tun.mode & 0o666) !== 0o666) chmodSync('/dev/net/tun', 0o666)
  return isRoot || (tun.mode & 0o006) === 0o006 ? undefined : '/dev/net/tun is closed to users'
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
