// The bridge, between a host and an internet of our own.

import { execSync, spawn } from 'node:child_process'
import { chmodSync, copyFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { HOST, HOST6, type Hostnet, hostnet, noHostnet, SERVER, SERVER6 } from '../helpers/hostnet.ts'
import { cli, exec, has, type Outcome, ok, type Place, place, root } from '../helpers/product.ts'
import { skip } from '../helpers/skips.ts'

interface World extends Hostnet {
  box: Place
}

/** A test with a network of its own. */
function networked(title: string, body: (t: ExecutionContext, world: World) => Promise<void>): void {
  const missing = noHostnet() ?? (has('ping') ? undefined : 'ping is missing (Debian: iputils-ping)')
  if (missing) {
    skip(title, missing)
    return
  }
  test.serial(title, async (t) => {
    const net = hostnet(t)
    const box = place(t, root, net.host)
    // The copy has no capability of its own, as ping on a system that lets users ping.
    copyFileSync(execSync('command -v ping', { encoding: 'utf8' }).trim(), join(box.dir, 'ping'))
    chmodSync(box.dir, 0o755)
    await body(t, { ...net, box })
  })
}

/** Starts a program in a namespace until the test ends, and waits for its first line. */
function resident(
  t: ExecutionContext,
  netns: string,
  file: string,
  args: string[],
  env: NodeJS.ProcessEnv = {},
): Promise<string> {
  const child = spawn('nsenter', [`--net=/run/netns/${netns}`, file, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, NSRS_TEST_RUN: process.env.NSRS_TEST_RUN, ...env },
    cwd: '/',
  })
  t.teardown(
    () =>
      new Promise<void>((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) return resolve()
        child.on('exit', () => resolve())
        child.kill()
      }),
  )
  return new Promise((resolve, reject) => {
    let errors = ''
    child.stdout.once('data', (text) => resolve(String(text).trim()))
    child.stderr.on('data', (text) => {
      errors += text
    })
    child.on('exit', () => reject(new Error(`${file} ended: ${errors}`)))
  })
}

/** Waits beside the rest of a script until its shell, or what takes its place, listens on so many more sockets. */
const listening = (count: number, tell: string) =>
  `old=$(ss -Htuln | wc -l); (while kill -0 $$ && [ $(ss -Htuln | wc -l) -lt $((old + ${count})) ]; do sleep 0.05; done; ${tell}) &`

/** A container on the bridge that runs until the test ends: tells its addresses once so many sockets listen. */
async function neighbour(
  t: ExecutionContext,
  world: World,
  options: string[],
  script: string,
  sockets = 0,
): Promise<{ v4: string; v6: string }> {
  const tell = 'ip -o addr show dev eth0 scope global | tr -s " " | cut -d" " -f4 | cut -d/ -f1 | tr "\\n" " "; echo'
  const whole = `${listening(sockets, tell)} ${script}`
  const args = [cli, 'run', '--network', 'bridge', ...options, '--', 'sh', '-c', whole]
  const [v4 = '', v6 = ''] = (
    await resident(t, world.host, process.execPath, args, { NSRS_STATE_DIR: world.box.state })
  ).split(' ')
  return { v4, v6 }
}

/** What answers: it reads the question first, for socat gives up a program that can't be written to. */
const answer = (text: string) => `SYSTEM:"read -r question; echo ${text}"`

/** A server that answers with the address it sees. */
async function server(t: ExecutionContext, netns: string, listen: string): Promise<void> {
  const socat = `exec socat -t5 ${listen},fork '${answer('$SOCAT_PEERADDR')}'`
  await resident(t, netns, 'sh', ['-c', `${listening(1, 'echo up')} ${socat}`])
}

const ask = (address: string) => `echo | socat -t5 -T8 - ${address} 2>&1`
const from = (netns: string, address: string): Promise<Outcome> => exec('sh', ['-c', ask(address)], { netns, as: root })

networked("containers reach the internet with the host's address", async (t, world) => {
  await server(t, world.internet, 'TCP-LISTEN:7000,bind=0.0.0.0,reuseaddr')
  await server(t, world.internet, 'TCP6-LISTEN:7001,ipv6only=1,reuseaddr')
  await server(t, world.internet, `UDP4-RECVFROM:7002,bind=${SERVER}`)
  const seen = await world.box.output([
    '--network',
    'bridge',
    'sh',
    '-c',
    [`TCP:${SERVER}:7000`, `TCP6:[${SERVER6}]:7001`, `UDP:${SERVER}:7002`].map(ask).join(';'),
  ])
  t.deepEqual(seen.split('\n'), [HOST, `[2001:0db8:0001:0000:0000:0000:0000:0001]`, HOST], HOST6)
  t.is(
    await world.box.output([
      '--network',
      'bridge',
      'sh',
      '-c',
      `./ping -c1 -W10 ${SERVER} >/dev/null && ./ping -c1 -W10 ${SERVER6} > /dev/null && echo pong`,
    ]),
    'pong',
  )
})

networked('two containers ping each other, by IPv4 and IPv6, without a capability', async (t, world) => {
  const other = await neighbour(t, world, [], 'exec sleep 600')
  t.regex(other.v6, /^fd/)
  const ping = `./ping -c1 -W10 ${other.v4} >/dev/null && ./ping -c1 -W10 ${other.v6} >/dev/null && echo pong`
  t.is(
    await world.box.output(['--network', 'bridge', '--cap-drop', 'ALL', '-u', '65534:65534', 'sh', '-c', ping]),
    'pong',
  )
})

networked(
  'published ports answer on every address of the host, on loopback and to other containers',
  async (t, world) => {
    const tcp = await neighbour(
      t,
      world,
      ['-p', '8080:80', '-p', '8081:81/udp'],
      `socat -t5 TCP6-LISTEN:80,ipv6only=0,fork,reuseaddr '${answer('tcp')}' & exec socat -t5 UDP6-LISTEN:81,ipv6only=0,fork '${answer('udp')}'`,
      2,
    )
    const places: [string, string, string][] = [
      [world.internet, `TCP:${HOST}:8080`, 'tcp'],
      [world.internet, `UDP:${HOST}:8081`, 'udp'],
      [world.internet, `TCP6:[${HOST6}]:8080`, 'tcp'],
      [world.host, 'TCP:127.0.0.1:8080', 'tcp'],
      [world.host, `TCP:${HOST}:8080`, 'tcp'],
      [world.host, 'UDP:127.0.0.1:8081', 'udp'],
      [world.host, `TCP:${tcp.v4}:80`, 'tcp'],
      [world.host, `TCP6:[${tcp.v6}]:80`, 'tcp'],
    ]
    for (const [netns, address, answer] of places)
      t.is((await from(netns, address)).stdout.trim(), answer, `${address} from ${netns}`)
    const inside = await world.box.output([
      '--network',
      'bridge',
      'sh',
      '-c',
      [`TCP:${HOST}:8080`, `UDP:${HOST}:8081`, `TCP:${tcp.v4}:80`].map(ask).join(';'),
    ])
    t.is(inside, 'tcp\nudp\ntcp')
  },
)

networked('a port published on loopback alone answers nowhere else', async (t, world) => {
  await neighbour(
    t,
    world,
    ['-p', '127.0.0.1:8080:80'],
    `exec socat -t5 TCP-LISTEN:80,fork,reuseaddr '${answer('tcp')}'`,
    1,
  )
  t.is((await from(world.host, 'TCP:127.0.0.1:8080')).stdout.trim(), 'tcp')
  t.regex((await from(world.internet, `TCP:${HOST}:8080,connect-timeout=2`)).stdout, /refused|timed out/)
  t.regex((await from(world.host, `TCP:${HOST}:8080,connect-timeout=2`)).stdout, /refused/)
})

networked("a port on the host's IPv6 loopback is refused, for no packet leaves it by a bridge", async (t, world) => {
  await neighbour(
    t,
    world,
    ['-p', '8080:80'],
    `exec socat -t5 TCP6-LISTEN:80,ipv6only=0,fork,reuseaddr '${answer('tcp')}'`,
    1,
  )
  t.is((await from(world.host, `TCP6:[${HOST6}]:8080`)).stdout.trim(), 'tcp')
  t.regex((await from(world.host, 'TCP6:[::1]:8080,connect-timeout=20')).stdout, /refused/, 'localhost goes on to IPv4')
  const { code, stderr } = await world.box.run(['--network', 'bridge', '-p', '[::1]:8081:80', 'true'])
  t.is(code, 125, stderr)
  t.regex(stderr, /--publish "\[::1\]:8081:80/)
  t.regex(stderr, /hint: .*127\.0\.0\.1/)
})

/** Deletes a chain's rules from a table that belongs to a process, over that process's own socket. */
const ROBBER = `
import ctypes, os, socket, struct, sys
pid, table, chain = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3].encode()
with open(f'/proc/{pid}/net/netlink') as lines:
    netfilter = {line.split()[9] for line in lines if line.split()[1] == '12'}
owned = [fd for fd in os.listdir(f'/proc/{pid}/fd') if os.readlink(f'/proc/{pid}/fd/{fd}')[8:-1] in netfilter]
PIDFD_GETFD = 438
fd = ctypes.CDLL(None).syscall(PIDFD_GETFD, os.pidfd_open(pid), int(owned[0]), 0)
sock = socket.socket(fileno=fd)
def message(kind, flags, body): return struct.pack('=IHHII', 16 + len(body), kind, flags, 0, 0) + body
def text(kind, value):
    value += b'\\0'
    return struct.pack('=HH', 4 + len(value), kind) + value + b'\\0' * (-len(value) % 4)
NFT, BEGIN, END, DELRULE, REQUEST, ACK = 10, 16, 17, 8, 1, 4
edge = struct.pack('>BBH', 0, 0, NFT)
sock.send(message(BEGIN, REQUEST, edge)
    + message(NFT << 8 | DELRULE, REQUEST | ACK, struct.pack('>BBH', 1, 0, 0) + text(1, table) + text(2, chain))
    + message(END, REQUEST, edge))
error = struct.unpack('=i', sock.recv(4096)[16:20])[0]
sys.exit(os.strerror(-error) if error else 0)
`

networked("nobody on the bridge reaches the host's own loopback, which the guard alone prevents", async (t, world) => {
  await neighbour(t, world, ['-p', '127.0.0.1:8080:80'], 'exec sleep 600')
  await server(t, world.host, 'TCP-LISTEN:9000,bind=127.0.0.1,reuseaddr')
  t.is((await from(world.host, 'TCP:127.0.0.1:9000')).stdout.trim(), '127.0.0.1')

  const foe = `${world.host}-foe`
  await ok('ip', ['netns', 'add', foe])
  t.teardown(() => ok('ip', ['netns', 'del', foe]))
  const gateway = /inet ([\d.]+)/.exec(await ok('ip', ['-n', world.host, '-4', 'addr', 'show', 'nsrs0']))?.[1] ?? 'none'
  // Its own loopback is down, so that 127.0.0.1 is for it an address like any other.
  const steps = [
    ['-n', world.host, 'link', 'add', 'foe0', 'master', 'nsrs0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', foe],
    ['-n', world.host, 'link', 'set', 'foe0', 'up'],
    ['-n', foe, 'addr', 'add', gateway.replace(/\.\d+$/, '.66/16'), 'dev', 'eth0'],
    ['-n', foe, 'link', 'set', 'eth0', 'up'],
    ['-n', foe, 'route', 'add', '127.0.0.1', 'via', gateway],
  ]
  for (const step of steps) await ok('ip', step)
  await ok('sh', ['-c', 'echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet'], { netns: foe, as: root })

  const attack = (seconds: number) => from(foe, `TCP:127.0.0.1:9000,connect-timeout=${seconds}`)
  t.regex((await attack(2)).stdout, /timed out/)

  const table = /nsrs-(\d+)/.exec(await ok('nft', ['list', 'tables'], { netns: world.host, as: root }))
  await ok('python3', ['-c', ROBBER, table?.[1] ?? '', table?.[0] ?? '', 'guard'])
  t.regex((await attack(20)).stdout, /^10\.118\.\d+\.66$/m)
})

networked('a wanted address and hardware address are given, and taken ones are refused', async (t, world) => {
  const first = await neighbour(t, world, [], 'exec sleep 600')
  const wanted = first.v4.replace(/\.\d+$/, '.77')
  const facts = await world.box.output([
    '--network',
    'bridge',
    '--ip',
    wanted,
    '--mac-address',
    '02:00:00:00:00:77',
    'sh',
    '-c',
    'ip -o -4 addr show dev eth0; cat /sys/class/net/eth0/address',
  ])
  t.regex(facts, new RegExp(`inet ${wanted}/\\d+ [\\s\\S]*02:00:00:00:00:77$`))
  const refused: [string[], RegExp][] = [
    [
      ['--ip', first.v4],
      new RegExp(
        `--ip "${first.v4}": another container has this address, or another nsrs .*\\nhint: .* from .*\\.0\\.2 to`,
      ),
    ],
    [['--ip', '203.0.113.5'], /--ip "203.0.113.5": outside of the bridge's subnet\nhint: .* from 10\.118\.0\.2 to/],
    [['--ip', '203.0.113.5', '--ip6', '2001:db8::7'], /^(?=.*--ip "203)(?=.*--ip6 "2001:db8::7": outside)/s],
    [['--ip', '203.0.113.5', '-v', 'relative:/x', '--cap-add', 'NONE'], /^(?=.*--ip "203)(?=.*relative)(?=.*NONE)/s],
    [['--ip', first.v4.replace(/\.\d+$/, '.1')], /the bridge's address/],
    [['--ip', 'house'], /--ip "house": not an IP address/],
    [['--ip6', first.v4], /--ip6.*IPv4 address/],
    [['--mac-address', '01:00:00:00:00:01'], /group address/],
    [['--mac-address', '02:00'], /six bytes/],
  ]
  for (const [options, why] of refused) {
    const { code, stderr } = await world.box.run(['--network', 'bridge', ...options, 'true'])
    t.is(code, 125, stderr)
    t.regex(stderr, why)
  }
})

networked('a port that somebody has is refused, and named', async (t, world) => {
  await server(t, world.host, 'TCP-LISTEN:9000,reuseaddr')
  await neighbour(t, world, ['-p', '9001:80'], 'exec sleep 600')
  for (const port of ['9000:80', '9001:81', '127.0.0.1:9000:80']) {
    const { code, stderr } = await world.box.run(['--network', 'bridge', '-p', port, 'true'])
    t.is(code, 125, `${port} ${stderr}`)
    t.true(stderr.includes(port), stderr)
    t.regex(stderr, /EADDRINUSE|in use|published/)
  }
  t.is(
    (await world.box.run(['--network', 'bridge', '-p', '9000:80/udp', 'true'])).code,
    0,
    'the same number of another protocol is free',
  )
})

networked('/etc/hosts and /etc/resolv.conf tell what was asked for', async (t, world) => {
  const options = [
    '--network',
    'bridge',
    '-h',
    'box',
    '--domainname',
    'example.test',
    '--add-host',
    'db:192.0.2.7',
    '--add-host',
    'up:host-gateway',
    '--dns',
    '192.0.2.53',
    '--dns-search',
    'example.test',
    '--dns-option',
    'ndots:2',
  ]
  const text = await world.box.output([
    ...options,
    'sh',
    '-c',
    'cat /etc/hosts /etc/hostname /etc/resolv.conf; hostname; ip -4 route show default; getent hosts db',
  ])
  t.regex(text, /^127\.0\.0\.1\s+localhost/m)
  t.regex(text, /^(\d+\.){3}\d+\s+box(\.example\.test box)?$/m)
  t.regex(text, /^192\.0\.2\.7\s+db$/m)
  const gateway = /default via (\S+)/.exec(text)?.[1] ?? 'none'
  t.true(new RegExp(`^${gateway.replaceAll('.', '\\.')}\\s+up$`, 'm').test(text), text)
  t.regex(
    text,
    /^nameserver 192\.0\.2\.53\n(.*\n)*search example\.test|^search example\.test\n(.*\n)*nameserver 192\.0\.2\.53/m,
  )
  t.regex(text, /^options ndots:2$/m)
  t.is(text.match(/^box$/gm)?.length, 2)
})

networked('a network namespace is joined by name and left as it is', async (t, world) => {
  const before = await ok('ip', ['-br', '-n', world.internet, 'addr'])
  t.is((await world.box.output(['--network', `ns:${world.internet}`, 'ip', '-br', 'addr'])).trimEnd(), before)
  t.is(await ok('ip', ['-br', '-n', world.internet, 'addr']), before)
})

networked('network none has loopback, up, and nothing else', async (t, world) => {
  const text = await world.box.output([
    '--network',
    'none',
    'sh',
    '-c',
    'ls /sys/class/net; ./ping -c1 -W10 127.0.0.1 >/dev/null && ./ping -c1 -W10 ::1 >/dev/null && echo pong',
  ])
  t.is(text, 'lo\npong')
})

networked('nothing of the network is left behind', async (t, world) => {
  const list = "ip -o link | cut -d: -f2; ip addr | sed 's/ tentative//'; ip route; nft list ruleset"
  const count = async () => ok('sh', ['-c', list], { netns: world.host, as: root })
  const before = await count()
  for (let round = 0; round < 3; round++)
    await world.box.output(['--network', 'bridge', '-p', `808${round}:80`, 'true'])
  // The bridge is removed behind the caller's back.
  for (const end = Date.now() + 20_000; Date.now() < end && (await count()) !== before; )
    await new Promise((resolve) => setTimeout(resolve, 50))
  t.is(await count(), before)
})

networked('whoever removes the bridge does not keep the directory of the caller', async (t, { box }) => {
  const script = `mount --make-rprivate / && mount -t tmpfs t m && for n in 1 2 3 4 5; do
    (cd m && "$0" "$1" run --network bridge -w / -- true) || exit; done; umount m`
  box.make('m')
  const { code, stderr } = await box.exec('unshare', ['-m', 'sh', '-c', script, process.execPath, cli])
  t.is(code, 0, stderr)
})

for (const command of ['info', 'doctor']) {
  networked(`nsrs ${command} removes the bridge of a supervisor that was killed`, async (t, { box, host }) => {
    const bridges = () => ok('ip', ['-n', host, '-o', 'link', 'show', 'type', 'bridge'], { as: root })
    await box.nsrs(['run', '--network', 'bridge', '--', 'sh', '-c', 'echo up; exec sleep 60'], {
      wrote: (pid) => process.kill(pid, 'SIGKILL'),
    })
    t.regex(await bridges(), /nsrs0/)
    const { stdout, stderr } = await box.nsrs([command])
    t.is(await bridges(), '', stdout + stderr)
    t.deepEqual(readdirSync(join(box.state, 'supervisors')), [])
  })
}
