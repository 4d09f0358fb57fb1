// What a person sees of a pull on a terminal.

import { spawn, spawnSync } from 'node:child_process'
import test, { type ExecutionContext } from 'ava'
import { cli } from '../helpers/cli.ts'
import { until } from '../helpers/host.ts'
import {
  checkBlobs,
  digestOf,
  noRegistry,
  publish,
  readBySkopeo,
  registry,
  slowed,
  source,
} from '../helpers/registry.ts'
import { skip } from '../helpers/skips.ts'
import { imageStore } from '../helpers/store.ts'
import { onTerminal } from '../helpers/terminal.ts'

const missing = noRegistry()
const each = (title: string, body: (t: ExecutionContext) => Promise<unknown>) =>
  missing ? skip(title, missing) : test.serial(title, body)
let [address, slow, layout] = ['', '', '']

test.before(async () => {
  if (missing) return
  address = await registry()
  slow = await slowed(address, 2_000_000)
  layout = source(4_000_000, 3000)
  publish(layout, `${address}/box:1`)
})

each('on a terminal there is a line a layer, drawn anew, and a closing line', async (t) => {
  const env = imageStore(t)
  const { text, status } = await onTerminal([cli, 'pull', `${slow}/box:1`], [], env)
  t.is(status, 0, text)
  const digest = digestOf(`${address}/box:1`)
  t.regex(text, /\x1b\[\dA/, 'lines are drawn over')
  t.regex(text, /[0-9a-f]{12} {2}downloading {2}[\d.]+ [kM]?B of 4\.0 MB {2}[\d.]+ [kM]B\/s/)
  const last = text
    .slice(text.lastIndexOf('\x1b[3A'))
    .replaceAll(/\x1b\[\d*[A-Z]|\r/g, '')
    .trim()
    .split('\n')
  t.is(last.length, 4, text)
  for (const line of last.slice(0, 3)) t.regex(line, /^[0-9a-f]{12} {2}done {9}[\d.]+ [kM]?B$/)
  t.regex(last[3] ?? '', new RegExp(`^${slow}/box:1: ${digest} in [1-9][\\d.]* s$`))
})

each('Ctrl-C in mid-pull ends with 130, and the next pull goes on from there', async (t) => {
  const env = imageStore(t)
  const shell = `trap : INT; ${cli} pull ${slow}/box:1; echo "code $?"`
  const { text, left } = await onTerminal(['bash', '-c', shell], [['B/s', '\x03']], env)
  t.deepEqual(left, [], text)
  t.true(text.includes('code 130'), text)
  const nsrs = (...args: string[]) => spawnSync(cli, args, { encoding: 'utf8', env, timeout: 60_000 })
  t.is(nsrs('images', '--format', 'json').stdout, '[]\n')
  checkBlobs(env.NSRS_IMAGE_DIR)
  t.is(nsrs('pull', '-q', `${address}/box:1`).stdout, `${digestOf(`${address}/box:1`)}\n`)
  t.is(readBySkopeo(env.NSRS_IMAGE_DIR, `${address}/box:1`).layers.length, 3)
})

each('a password is asked for without echo, and Ctrl-C there ends with 130', async (t) => {
  const env = imageStore(t)
  const shell = `stty -g; trap : INT; ${cli} login ${address}; echo "code $?"; stty -g`
  const { text, left } = await onTerminal(
    ['bash', '-c', shell],
    [
      ['username for', 'gustav\n'],
      ['password: ', 'sec'],
      ['', 'ret\x03'],
    ],
    env,
  )
  t.deepEqual(left, [], text)
  t.true(text.includes('code 130') && !text.includes('sec'), text)
  const [before, after] = text.split('\r\n').filter((line) => /^[0-9a-f:]{20,}$/.test(line))
  t.is(before, after)
})

for (const [signal, code] of [
  ['TERM', 143],
  ['HUP', 129],
  ['QUIT', 131],
] as const) {
  each(`SIG${signal} at the question for a password gives the terminal back`, async (t) => {
    const env = imageStore(t)
    const file = `${env.HOME}/pid`
    const whenSilent = `until stty -a < /dev/tty | grep -q -- ' -echo '; do sleep 0.05; done`
    const login = `sh -c 'echo $$ > ${file}; exec ${cli} login -u gustav ${address}'`
    const shell = `stty -g; { ${whenSilent}; kill -${signal} $(cat ${file}); } & ${login}; echo "code $?"; stty -g`
    const { text } = await onTerminal(['bash', '-c', shell], [], env)
    t.true(text.includes(`code ${code}`), text)
    const [before, after] = text.split('\r\n').filter((line) => /^[0-9a-f:]{20,}$/.test(line))
    t.is(before, after)
  })
}

each('what belongs into a file does not go to a terminal', async (t) => {
  const env = imageStore(t)
  const pull = spawnSync(cli, ['pull', '-q', `${address}/box:1`], { encoding: 'utf8', env })
  t.is(pull.status, 0, pull.stderr)
  const { text, status } = await onTerminal([cli, 'save', `${address}/box:1`], [], env)
  t.is(status, 125)
  t.regex(text, /standard output is a terminal\r\nhint: give a file: --output FILE/)
})

each('what the caller ignores, as nohup does, ends no pull, that of a run neither', async (t) => {
  for (const [args, code] of [
    [['pull', '-q', `${slow}/box:1`], 0],
    [['run', '--network', 'none', `${slow}/box:1`, '/none'], 127],
  ] as const) {
    const env = imageStore(t)
    const child = spawn('sh', ['-c', 'trap "" HUP; exec "$@"', 'sh', cli, ...args], {
      env,
      detached: true,
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    const closed = new Promise((resolve) => child.once('close', (code, signal) => resolve(code ?? signal)))
    const all = `ps -o comm= -s ${child.pid} | grep -q nsrs-image`
    t.true(await until(() => spawnSync('sh', ['-c', all]).status === 0))
    // To its whole group, as a terminal that goes.
    process.kill(-(child.pid as number), 'SIGHUP')
    t.is(await closed, code, args.join(' '))
    const { stdout } = spawnSync(cli, ['images', '-q'], { encoding: 'utf8', env })
    t.is(stdout.trim().split('\n').length, 1, stdout)
  }
})
