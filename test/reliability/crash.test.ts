// kill -9 at random moments: of Node, of its supervisor, of both, of a container in the foreground.

import { execSync } from 'node:child_process'
import { chmodSync, copyFileSync } from 'node:fs'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { asUser, exec, has, isRoot, type Place, place, project, root, user } from '../helpers/product.ts'
import { busyboxRoot } from '../helpers/roots.ts'
import { skip } from '../helpers/skips.ts'

/** The tests together have 300 starts; NSRS_CRASH_ROUNDS=300 gives each as many. */
const given = process.env.NSRS_CRASH_ROUNDS
/** An interface for pasta to copy; nothing is behind it. */
const OUTSIDE =
  'ip link set lo up; ip link add up0 type veth peer name up1; ip link set up1 up; ip addr add 192.0.2.1/24 dev up0; ip link set up0 up; ip route add default via 192.0.2.9'
const driver = join(import.meta.dirname, '../helpers/crash-driver.mjs')

async function crash(t: ExecutionContext, at: Place, network: string, rounds: number): Promise<void> {
  const limit = 120_000 + rounds * 10_000
  t.timeout(limit)
  copyFileSync(execSync('command -v ping', { encoding: 'utf8' }).trim(), join(at.dir, 'ping'))
  chmodSync(at.dir, 0o755)
  const other = at.as.uid === 0 ? [] : ['setpriv', `--reuid=${at.as.uid}`, `--regid=${at.as.gid}`, '--init-groups']
  // Nothing but nsrs is in there, so that everything can be counted.
  const inside = [
    '--net',
    '--mount',
    '--pid',
    '--fork',
    '--mount-proc',
    '--',
    'sh',
    '-c',
    `${OUTSIDE}; exec "$@"`,
    'sh',
    ...other,
  ]
  const env = { NSRS_STATE_DIR: at.state }
  const { code, stdout, stderr } = await exec(
    'unshare',
    [...inside, process.execPath, driver, String(rounds), network, at.state, busyboxRoot(at)],
    { cwd: at.dir, env, as: root, timeout: limit },
  )
  t.is(code, 0, stderr)
  const { before, after, closer } = JSON.parse(stdout) as Record<'before' | 'after' | 'closer', Record<string, unknown>>
  for (const what of Object.keys(before))
    t.deepEqual(after[what], before[what], `left behind: ${what}; ${JSON.stringify(closer)}`)
  t.log(`${rounds} starts`, JSON.stringify({ ...after, nft: undefined, routes: undefined }))
}

function crashes(network: string, as: typeof root, rounds: number, missing?: string): void {
  const title = `after kill -9 at random moments nothing is left, with the network ${network} (as ${as.uid === 0 ? 'root' : 'an ordinary user'})`
  const why = !isRoot
    ? 'needs root'
    : has('ping') && has('nft')
      ? missing
      : 'ping or nft is missing (Debian: iputils-ping, nftables)'
  if (why) {
    skip(title, why)
    return
  }
  test.serial(title, async (t) => crash(t, place(t, as), network, Number(given ?? rounds)))
}

crashes('none', root, 60)
crashes('bridge', root, 100)
crashes('none', user, 60)
crashes('pasta', user, 80, has('pasta') ? undefined : 'pasta is missing (Debian: passt)')

asUser('the end of the supervisor is told where no thread can be made', async (t, place) => {
  // The limit is of the user: one is below whatever runs already.
  const script = `
    import { execFileSync, spawnSync } from 'node:child_process'
    import { readFileSync } from 'node:fs'
    import { run } from ${JSON.stringify(join(project, 'dist/index.js'))}
    await run('true', { network: 'none' })
    const waiting = run('sleep', ['60'], { network: 'none' })
    const [supervisor] = readFileSync('/proc/self/task/' + process.pid + '/children', 'utf8').trim().split(' ')
    execFileSync('prlimit', ['--nproc=1', '--pid', String(process.pid)])
    process.kill(Number(supervisor), 'SIGKILL')
    await waiting.catch(({ code }) => console.log(code))`
  const args = ['--input-type=module', '-e', script]
  const { stdout, stderr } = await place.exec(process.execPath, args, { timeout: 20_000 })
  t.is(stdout, 'ERR_NSRS_SUPERVISOR_LOST\n', stderr)
})
