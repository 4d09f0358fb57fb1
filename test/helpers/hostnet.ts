// A network of our own: a namespace that stands for the host, and one behind it that stands for the internet. No address
// outside of them is ever used.

import { execFileSync } from 'node:child_process'
import type { ExecutionContext } from 'ava'
import { has, isRoot } from './product.ts'

/** The host's address, and that of the server in the internet. */
export const HOST = '192.0.2.1'
export const SERVER = '198.51.100.9'
export const HOST6 = '2001:db8:1::1'
export const SERVER6 = '2001:db8:2::9'

/** Why there can be none. */
export function noHostnet(): string | undefined {
  if (!isRoot) return 'needs root'
  if (!has('ip')) return 'ip is missing (Debian: iproute2)'
  return has('socat') ? undefined : 'socat is missing'
}

let count = 0

/** Names of the two namespaces. */
export interface Hostnet {
  host: string
  internet: string
}

function ip(...args: string[]): void {
  execFileSync('ip', args, {
    env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
}

/** Makes both; they go with the test. */
export function hostnet(t: ExecutionContext): Hostnet {
  const id = `${process.pid}-${count++}`
  const net = { host: `nsrs-host-${id}`, internet: `nsrs-net-${id}` }
  for (const name of Object.values(net)) {
    ip('netns', 'add', name)
    t.teardown(() => ip('netns', 'del', name))
    ip('-n', name, 'link', 'set', 'lo', 'up')
  }
  ip('-n', net.host, 'link', 'add', 'up0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', net.internet)
  const both = (name: string, link: string, v4: string, v6: string) => {
    ip('-n', name, 'addr', 'add', v4, 'dev', link)
    ip('-n', name, '-6', 'addr', 'add', v6, 'dev', link, 'nodad')
    ip('-n', name, 'link', 'set', link, 'up')
  }
  both(net.host, 'up0', `${HOST}/24`, `${HOST6}/64`)
  both(net.internet, 'eth0', '192.0.2.9/24', '2001:db8:1::9/64')
  ip('-n', net.internet, 'addr', 'add', `${SERVER}/32`, 'dev', 'lo')
  ip('-n', net.internet, '-6', 'addr', 'add', `${SERVER6}/128`, 'dev', 'lo', 'nodad')
  ip('-n', net.host, 'route', 'add', 'default', 'via', '192.0.2.9')
  ip('-n', net.host, '-6', 'route', 'add', 'default', 'via', '2001:db8:1::9')
  waitForCarrier(net.host, 'up0')
  return net
}

/** Waits until the kernel has noticed the other end, and given the link an address of its own: a busy machine takes a while. */
function waitForCarrier(netns: string, link: string): void {
  for (const end = Date.now() + 10_000; Date.now() < end; ) {
    const text = execFileSync('ip', ['-n', netns, 'addr', 'show', link], {
      encoding: 'utf8',
      env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    })
    if (text.includes('state UP') && /inet6 fe80/.test(text) && !text.includes('tentative')) return
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20)
  }
}
