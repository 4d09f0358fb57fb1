// Kills nsrs at random moments, in namespaces that hold nothing else, and writes what there was before and after.
// Arguments: rounds, network, state directory, a root.

import { spawn, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const rounds = Number(process.argv[2])
const [network, state, root] = process.argv.slice(3)
const cli = new URL('../../dist/cli.cjs', import.meta.url).pathname
const victim = new URL('crash-victim.mjs', import.meta.url).pathname
const env = { ...process.env, NSRS_STATE_DIR: state }

function processes() {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
        const [status, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
        return [{ pid: Number(pid), parent: Number(parent), status, command }]
      } catch {
        return []
      }
    })
}

const output = (file, ...args) => spawnSync(file, args, { encoding: 'utf8' }).stdout ?? ''

/** Everything that nsrs could leave behind. */
function census() {
  const list = (directory) => {
    try {
      return readdirSync(directory, { recursive: true }).map(String).sort()
    } catch {
      return []
    }
  }
  return {
    processes: processes()
      .filter(({ pid, status }) => pid !== process.pid && status !== 'Z')
      .map(({ command }) => command),
    // Without the network namespaces of tests beside this one: the kernel takes their mounts away here too.
    mounts: readFileSync('/proc/self/mountinfo', 'utf8')
      .trim()
      .split('\n')
      .filter((line) => !line.includes(' /run/netns')).length,
    links: output('ip', '-o', 'link')
      .trim()
      .split('\n')
      .map((line) => line.split(': ')[1]),
    bridge: output('bridge', 'link').trim(),
    addresses: output('ip', '-br', 'addr'),
    routes: output('ip', 'route') + output('ip', '-6', 'route'),
    nft: output('nft', 'list', 'ruleset'),
    forwarding: ['ipv4/ip_forward', 'ipv6/conf/all/forwarding', 'ipv4/conf/all/route_localnet'].map((key) =>
      readFileSync(`/proc/sys/net/${key}`, 'utf8').trim(),
    ),
    // The addresses' own files are leases; what says which was the last is not.
    state: list(state),
    fifos: output('find', state, '-type', 'p').trim(),
  }
}

/** One nsrs command in good health, which collects what is left; true if its network works. */
function command() {
  const script = network === 'bridge' ? './ping -c1 -W10 $(ip -4 route show default | cut -d" " -f3)' : 'true'
  const { status, stderr } = spawnSync(process.execPath, [cli, 'run', '--network', network, '--', 'sh', '-c', script], {
    env,
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`a command in good health ended with ${status}: ${stderr}`)
}

/** The census once it stands still: the kernel takes namespaces down in its own time. */
async function settled(wanted, milliseconds) {
  let now = census()
  for (const end = Date.now() + milliseconds; Date.now() < end && JSON.stringify(now) !== wanted; ) {
    await sleep(50)
    now = census()
  }
  return now
}

function kill(pid) {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {}
}

/** Those of this Node process: the one of a process killed before may still be cleaning up. */
const supervisors = (node) =>
  processes()
    .filter(({ parent, command }) => parent === node && /nsrs-runtime supervise/.test(command))
    .map(({ pid }) => pid)

async function attached(round, moment) {
  const child = spawn(process.execPath, [victim, network, String(20_000 + round), root], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.on('close', resolve))
  await new Promise((resolve) => child.stdout.once('data', resolve))
  await sleep(moment)
  const victims = supervisors(child.pid)
  const kind = round % 3
  if (kind !== 0) victims.forEach(kill)
  // Too early for a supervisor: then Node is the one.
  if (kind !== 1 || victims.length === 0) kill(child.pid)
  // A Node process that lost its supervisor tells it to its callers, and ends.
  const late = setTimeout(() => kill(child.pid), 60_000)
  await ended
  clearTimeout(late)
  if (kind === 1 && victims.length > 0 && child.signalCode)
    throw new Error(`Node did not notice that its supervisor was killed: ${child.signalCode}`)
}

async function foreground(_round, moment) {
  const child = spawn(process.execPath, [cli, 'run', '--network', network, '--', 'sh', '-c', 'echo; exec sleep 100'], {
    env,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = new Promise((resolve) => child.on('close', resolve))
  await sleep(60 + moment)
  kill(child.pid)
  await ended
}

command()
await sleep(300)
const before = await settled('', 3000)
for (let round = 0; round < rounds; round++) {
  const moment = Math.random() * 60
  await (round % 4 === 3 ? foreground : attached)(round, moment)
}
await sleep(100)
command()
const after = await settled(JSON.stringify(before), 20_000)
command()
/** What is left of processes, closer. */
const closer = processes().map((process) => ({
  ...process,
  wchan: read(process.pid, 'wchan'),
  stat: read(process.pid, 'stat'),
}))
process.stdout.write(JSON.stringify({ before, after, closer }))

function read(pid, name) {
  try {
    return readFileSync(`/proc/${pid}/${name}`, 'utf8')
  } catch (error) {
    return error.code
  }
}
