import { execFile, spawn } from 'node:child_process'
import { promisify } from 'node:util'
import test, { type ExecutionContext } from 'ava'
import { cli } from '../helpers/cli.ts'
import { busybox } from '../helpers/host.ts'
import { onTerminal } from '../helpers/terminal.ts'

const root = busybox()

const box = [cli, 'run', '--rootfs', root, '--network', 'none']

test('a shell on a terminal of its own', async (t) => {
  const { text, status, left } = await onTerminal(
    [...box, '-it', 'sh'],
    [
      ['#', 'tty; stty size; echo $((40 + 2))\n'],
      ['42\r\n', 'exit 7\n'],
    ],
  )
  t.deepEqual(left, [], text)
  t.true(text.includes('/dev/pts/0') && text.includes('33 99'), text)
  t.is(status, 7)
})

test("Ctrl-C reaches the command, on its own terminal and on the caller's", async (t) => {
  for (const options of [['-it'], []]) {
    const { text, status } = await onTerminal(
      [...box, ...options, 'sh', '-c', 'trap "echo caught; exit 9" INT; echo up; while :; do sleep 0.1; done'],
      [['up', '\x03']],
    )
    t.true(text.includes('caught'), text)
    t.is(status, 9)
  }
})

for (const [key, code, name] of [
  ['\x03', 130, 'Ctrl-C'],
  ['\x1c', 131, 'Ctrl-\\'],
] as const) {
  test(`${name} on a terminal of its own ends a PID 1 without a handler`, async (t) => {
    // Not a shell that becomes the program: on a terminal BusyBox's ignores Ctrl-\\ until it does.
    const { text, status, left } = await onTerminal(
      [...box, '-it', 'cat'],
      [
        ['', 'up\n'],
        ['up\r\nup', key],
      ],
    )
    t.deepEqual([status, left], [code, []], text)
  })
}

test('Ctrl-C ends the script that waits, as it does without nsrs', async (t) => {
  const command = [...box, 'cat'].map((word) => `'${word}'`).join(' ')
  for (const program of [command, 'cat']) {
    const script = `for round in 1 2; do echo "round $round"; ${program}; done; echo done`
    const { text, left } = await onTerminal(
      ['bash', '-c', script],
      [
        ['round 1', 'up\n'],
        ['up\r\nup', '\x03'],
      ],
    )
    t.deepEqual(left, [], text)
    t.notRegex(text, /round 2|done/)
  }
})

test('a key that the command takes as a byte is one', async (t) => {
  const { text, status } = await onTerminal(
    [...box, '-it', 'sh', '-c', 'stty raw; echo up; dd bs=1 count=1 2>/dev/null | od -An -tx1'],
    [['up', '\x03']],
  )
  t.regex(text, /03/)
  t.is(status, 0)
})

/** Runs a line of bash with `nsrs` as "$@"; its outcome with the exit codes of its pipeline. */
async function inPipe(line: string, args: readonly string[]) {
  const script = `${line}; echo "codes \${PIPESTATUS[*]}" >&2`
  const child = spawn('timeout', ['30', 'bash', '-c', script, 'bash', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const texts = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) child[name].on('data', (chunk) => (texts[name] += chunk))
  await new Promise((resolve) => child.on('close', resolve))
  return texts
}

test('an input that ends without a line feed ends', async (t) => {
  const { stdout, stderr } = await inPipe('printf foo | "$@"', [...box, '-it', 'cat'])
  t.is(stdout, 'foofoo')
  t.is(stderr, 'codes 0 0\n')
})

for (const [what, from, said] of [
  ['nothing', '</dev/null', ''],
  ['a closed input', '<&-', ''],
  ['a file', "<<<'one'", 'one\r\none\r\n'],
] as const) {
  test(`a terminal whose input is ${what} gives it to the command, and ends`, async (t) => {
    const words = [...box, '-t', 'cat'].map((word) => `'${word}'`).join(' ')
    const { stdout } = await promisify(execFile)('bash', ['-c', `timeout 30 ${words} ${from}`])
    t.is(stdout, said)
  })
}

test('of a file without an end no more is read than the terminal takes', async (t) => {
  const words = [...box, '-t', 'sh', '-c', 'sleep 1; exit 3'].map((word) => `'${word}'`).join(' ')
  const error = await t.throwsAsync<Error & { code: number }>(
    promisify(execFile)('bash', [
      '-c',
      `exec 9</dev/zero; ${words} <&9 >/dev/null & sleep 0.8; grep -h VmHWM /proc/$!/status >&2; wait $!`,
    ]),
  )
  t.is(error?.code, 3)
  const peak = Number(/VmHWM:\s+(\d+)/.exec(error?.message ?? '')?.[1])
  t.true(peak > 0 && peak < 100_000, error?.message)
})

test('a command with a terminal whose reader is gone is hung up', async (t) => {
  const { stdout, stderr } = await inPipe('"$@" | head -1', [...box, '-it', 'yes'])
  t.is(stdout, 'y\r\n')
  t.is(stderr, 'codes 129 0\n')
})

test('help whose reader is gone ends like any program', async (t) => {
  for (const args of [['--help'], ['run', '--help'], ['doctor']])
    t.is((await inPipe('(sleep 0.5; exec "$@") | true', [cli, ...args])).stderr, 'codes 141 0\n')
})

test("the caller's terminal is as it was, on every way out", async (t) => {
  const inner = [...box, '-it', 'sh', '-c', 'kill -9 $$; exit 3']
    .map((word) => `'${word.replaceAll("'", "'\\''")}'`)
    .join(' ')
  const { text } = await onTerminal(['sh', '-c', `stty -g; ${inner}; stty -g`], [])
  const [before, after] = text.split('\r\n').filter((line) => /^[0-9a-f:]+$/.test(line))
  t.truthy(before)
  t.is(before, after)
})

/**
 * Runs a command that ticks as a job of bash, stops it with Ctrl-Z, lets it go on after a while and ends it with Ctrl-C;
 * `whenStopped` is a piece of bash for the time between. Returns what was on the terminal.
 */
async function stoppedForAWhile(t: ExecutionContext, command: readonly string[], whenStopped = ''): Promise<string> {
  // What was on its way when the command was stopped may come a little later.
  const shell = `set -m
    ${command.map((word) => `'${word}'`).join(' ')}
    echo "stopped with $?"
    ${whenStopped}
    sleep 0.5; echo quiet; sleep 1; echo still
    fg`
  const { text, left, status } = await onTerminal(
    ['bash', '-c', shell],
    [
      ['tick', '\x1a'],
      ['still', ''],
      ['tick\r', '\x03'],
    ],
  )
  t.deepEqual(left, [], text)
  t.regex(text, /stopped with 148\r/)
  t.notRegex(text.split('quiet')[1]?.split('still')[0] ?? 'tick', /tick/, text)
  // By the signal itself or with its code: bash ends the same.
  t.is(status, 130, text)
  return text
}

for (const options of [[], ['-it']]) {
  test(`Ctrl-Z stops nsrs and the command, and fg goes on: nsrs run ${options.join(' ')}`, async (t) => {
    const states = `pid=$(jobs -p)
    for process in $pid $(cat /proc/$pid/task/$pid/children); do
      for try in $(seq 40); do
        state=$(cut -d' ' -f3 /proc/$process/stat)
        [ "$state" = T ] && break
        sleep 0.05
      done
      echo "state $state"
    done`
    const ticking = ['sh', '-c', 'while sleep 0.1; do echo tick; done']
    const text = await stoppedForAWhile(t, [...box, ...options, ...ticking], states)
    t.deepEqual(text.match(/state \w/g), ['state T', 'state T'], text)
  })
}

for (const init of [[], ['--init']]) {
  test(`a key of the terminal is for the whole job: nsrs run ${init.join(' ')}`, async (t) => {
    const job = 'echo up; (while sleep 0.1; do echo tick; done) | cat'
    await stoppedForAWhile(t, [...box, ...init, 'sh', '-c', job])
  })
}
