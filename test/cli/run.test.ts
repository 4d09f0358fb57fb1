import { spawn, spawnSync } from 'node:child_process'
import { closeSync, constants, openSync, readFileSync, readSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Writable } from 'node:stream'
import test from 'ava'
import { cliFlags, flags } from '../../cli/flags.ts'
import { cli, nsrs } from '../helpers/cli.ts'
import { busybox, temporary } from '../helpers/host.ts'

const root = busybox()
const box = ['run', '--rootfs', root, '--network', 'none']

test("output, error output and exit code are the command's own", (t) => {
  t.deepEqual(nsrs([...box, '--', 'sh', '-c', 'echo out; echo err >&2; exit 3']), {
    stdout: 'out\n',
    stderr: 'err\n',
    status: 3,
    signal: null,
  })
})

test("the double hyphen may be left out, and the command's own options stay its own", (t) => {
  t.is(nsrs([...box, 'echo', '-e', 'a', '--', '--help']).stdout, 'a -- --help\n')
  t.is(nsrs([...box, '--', 'echo', '--', 'a']).stdout, '-- a\n')
})

test('standard input is connected', (t) => {
  t.is(nsrs([...box, '--', 'cat'], { input: 'through' }).stdout, 'through')
  t.is(nsrs([...box, '-i', 'cat'], { input: 'through' }).stdout, 'through')
})

test('--rm says what happens anyway', (t) => {
  for (const words of [['--rm'], ['--rm', '-i'], ['-i', '--rm', '--']])
    t.is(nsrs([...box, ...words, 'echo', '--rm']).stdout, '--rm\n', words.join(' '))
})

test('standard streams are the very files of the caller', (t) => {
  const directory = temporary()
  writeFileSync(join(directory, 'in'), 'first second')
  const [input, output] = [openSync(join(directory, 'in'), 'r'), openSync(join(directory, 'out'), 'w')]
  nsrs([...box, '--', 'head', '-c', '6'], { stdio: [input, output, 'inherit'] })
  closeSync(output)
  t.is(readFileSync(join(directory, 'out'), 'utf8'), 'first ')
  closeSync(input)
})

test('a pipe that is closed early ends the command as it would without nsrs', (t) => {
  const line = `${cli} ${box.join(' ')} -- yes | head -n 1; echo "\${PIPESTATUS[0]}"`
  const { stdout } = spawnSync('bash', ['-c', line], { encoding: 'utf8', timeout: 60_000 })
  t.is(stdout, 'y\n141\n')
})

for (const [what, limit, code] of [
  ['its time limit', ['--timeout', '4'], 137],
  ['signals', [], 143],
] as const) {
  // Alone: others that wait synchronously would hold up the clocks here.
  test.serial(`a command that holds its pipe while it waits does not hold up ${what}`, async (t) => {
    const pipe = join(temporary(), 'pipe')
    spawnSync('mkfifo', [pipe])
    const fd = openSync(pipe, 'r+')
    const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK)
    t.teardown(() => {
      closeSync(fd)
      closeSync(reader)
    })
    // BusyBox's cat splices: it has the lock of its output pipe while it waits for the socket that is its input.
    const command = ['sh', '-c', 'echo up >&2; exec cat']
    const run = spawn(cli, [...box, ...limit, '--', ...command], { stdio: ['pipe', fd, 'pipe'] })
    const input = run.stdin as Writable
    input.on('error', () => {})
    run.stderr?.once('data', () => {
      setTimeout(() => input.write('late'), 300)
      if (limit.length === 0) setTimeout(() => run.kill('SIGTERM'), 1000)
    })
    let isHeldUp = false
    const rescue = setTimeout(() => {
      isHeldUp = true
      input.destroy()
    }, 15_000)
    t.is(await new Promise((resolve) => run.on('exit', resolve)), code)
    clearTimeout(rescue)
    input.destroy()
    t.false(isHeldUp)
    if (limit.length > 0) return
    const output = Buffer.alloc(9)
    t.is(output.toString('utf8', 0, readSync(reader, output)), 'late')
  })
}

test('signals that the caller ignores the command ignores too, and no others', (t) => {
  const ignored = (prefix: string) => {
    const script = `${prefix} "$@" sh -c 'grep SigIgn /proc/self/status'`
    const run = (...words: string[]) => spawnSync('sh', ['-c', script, 'sh', ...words], { encoding: 'utf8' }).stdout
    return [run(cli, 'run', '--network', 'none', '--'), run('env')]
  }
  for (const prefix of ['', "trap '' HUP INT USR1;", 'nohup']) {
    const [inside, outside] = ignored(prefix)
    t.regex(inside ?? '', /^SigIgn:/)
    t.is(inside, outside, prefix)
  }
})

test('a signal that the caller ignores does not end nsrs', async (t) => {
  const run = spawn('nohup', [cli, ...box, '--', 'sh', '-c', 'echo up; sleep 1; echo still'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  let text = ''
  run.stdout.on('data', (chunk) => {
    if (text === '') run.kill('SIGHUP')
    text += chunk
  })
  t.is(await new Promise((resolve) => run.on('close', resolve)), 0)
  t.is(text, 'up\nstill\n')
})

test('the exit code for a signal is 128 and its number', (t) => {
  t.is(
    nsrs([...box, '--', 'sh', '-c', 'kill -9 $$; sh -c "kill -9 1"; exit 5']).status,
    5,
    'PID 1 is safe from its own',
  )
  t.is(nsrs([...box, '--init', '--', 'sh', '-c', 'kill -15 $$']).status, 143)
})

test('the end of the time limit is said: its exit code is that of any SIGKILL', (t) => {
  const { status, stderr } = nsrs([...box, '--timeout', '0.1', '--', 'sleep', '60'])
  t.is(status, 137)
  t.is(stderr, 'nsrs: the command was killed: it ran for longer than --timeout allows\n')
})

for (const [signal, status] of [
  ['SIGTERM', 143],
  ['SIGINT', 130],
  ['SIGHUP', 129],
] as const) {
  test(`${signal} reaches the command`, async (t) => {
    const child = spawn(cli, [...box, '--', 'sh', '-c', 'echo up; sleep 600'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await new Promise((resolve) => child.stdout.once('data', resolve))
    child.kill(signal)
    const ended = await new Promise((resolve) => child.once('exit', (code, name) => resolve(code ?? name)))
    t.true(ended === status || ended === signal, String(ended))
  })
}

test("a command that is not there: 127; one that can't be executed: 126", (t) => {
  for (const [command, status] of [
    ['/bin/nope', 127],
    ['nope', 127],
    ['/etc/passwd', 126],
    ['/etc', 126],
  ] as const) {
    const result = nsrs([...box, '--', command])
    t.is(result.status, status, command)
    t.regex(result.stderr, /^nsrs: /)
  }
})

test("variables: given, from a file, and the caller's", (t) => {
  const file = join(temporary(), 'env')
  writeFileSync(file, '# comment\n\nA=from file\nB=x=y \nTOKEN\n')
  const print = ['--', 'sh', '-c', 'echo "$A|$B|$TOKEN|$C"']
  const env = { ...process.env, TOKEN: 'token', C: 'c' }
  t.is(nsrs([...box, '--env-file', file, ...print], { env }).stdout, 'from file|x=y |token|\n')
  t.is(nsrs([...box, '-e', 'A=given', '--env-file', file, '-e', 'C', ...print], { env }).stdout, 'given|x=y |token|c\n')
  t.is(nsrs([...box, '--env-host', ...print], { env }).stdout, '||token|c\n')
})

test('an option of every kind arrives', (t) => {
  const many = [
    '-h',
    'box',
    '-w',
    '/tmp',
    '-u',
    'ann',
    '--umask',
    '0027',
    '--ulimit',
    'nofile=100:200',
    '--tmpfs',
    '/tmp:mode=1777',
    '--read-only',
  ]
  const { stdout, stderr } = nsrs([
    ...box,
    ...many,
    '--',
    'sh',
    '-c',
    'cat /proc/sys/kernel/hostname; pwd; id -un; umask; ulimit -n; touch /tmp/x && touch /x',
  ])
  t.deepEqual(stdout.split('\n'), ['box', '/tmp', 'ann', '0027', '100', ''])
  t.regex(stderr, /Read-only/)
})

test('open file descriptors cross only by name', (t) => {
  const bash = (args: string) =>
    spawnSync('bash', ['-c', `exec 5</etc/hostname 6</etc/hostname; ${cli} ${box.join(' ')} ${args}`], {
      encoding: 'utf8',
    })
  t.is(bash('-- ls /proc/self/fd').stdout, '0\n1\n2\n3\n')
  t.is(bash('--preserve-fd 5-6 -- ls /proc/self/fd').stdout, '0\n1\n2\n3\n5\n6\n')
  const missing = bash('--preserve-fd 99 -- true')
  t.is(missing.status, 125)
  t.regex(missing.stderr, /--preserve-fd "99": the caller has no such open file descriptor/)
})

test("descriptors of Node, and of the shell that starts it, are not the caller's", (t) => {
  const ours = Array.from({ length: 22 }, (_, index) => index + 3).filter((fd) => ![5, 11, 16].includes(fd))
  for (const [start, numbers] of [
    [cli, [...ours, 255]],
    [`bash ${cli}`, [3, 10, 255]],
    [`busybox sh ${cli}`, [3, 10, 255]],
  ] as const) {
    const line = `exec 5</etc/hostname 11</etc/hostname 16</etc/hostname; exec ${start} ${box.join(' ')} "$@"`
    const run = (fds: string) =>
      spawnSync('bash', ['-c', line, 'bash', '--preserve-fd', fds, '--', 'ls', '/proc/self/fd'], { encoding: 'utf8' })
    const { stdout, stderr } = run('5,11,16')
    t.is(stdout, '0\n1\n11\n16\n2\n3\n5\n', stderr)
    for (const fd of numbers) {
      const { status, stderr } = run(`${fd}`)
      t.is(status, 125, `${start}: ${fd}`)
      t.is(stderr, `nsrs: invalid --preserve-fd "${fd}": the caller has no such open file descriptor\n`)
    }
  }
})

for (const [what, args, text] of [
  ['an unknown option', ['--hostnam', 'x', 'true'], /unknown option '--hostnam'.*--hostname/],
  ['no command', [], /missing required argument 'image or command'/],
  ['a number that is none', ['--oom-score-adj', 'much', 'true'], /invalid --oom-score-adj "much"/],
  ['a time that is none', ['--timeout', '-1', 'true'], /invalid --timeout "-1"/],
  ['descriptors that are none', ['--preserve-fd', '1', 'true'], /invalid --preserve-fd "1"/],
  ['a format of nothing', ['--format', 'json', 'true'], /--format needs --explain or --diff\n.*add one of them/],
  ['a file that is missing', ['--env-file', '/nope', 'true'], /invalid --env-file "\/nope": ENOENT/],
  ['a sysctl without a value', ['--sysctl', 'net.x', 'true'], /invalid --sysctl "net.x"/],
  ['a root that is missing', ['--rootfs', '/nope', 'true'], /\/nope/],
] as const) {
  test(`${what} is said, and exits with 125`, (t) => {
    const { status, stderr, stdout } = nsrs(['run', '--network', 'none', ...args])
    t.deepEqual([status, stdout], [125, ''])
    t.regex(stderr, text)
    t.regex(stderr, /^nsrs: /)
  })
}

test('mistakes of the command line and of the plan are told together', (t) => {
  const { status, stderr } = nsrs([
    ...box,
    '--oom-score-adj',
    'x',
    '--timeout',
    'y',
    '--hostname',
    'a b',
    '--umask',
    '9',
    '--',
    'true',
  ])
  t.is(status, 125)
  const lines = stderr.split('\n').filter((line) => line.startsWith('nsrs: '))
  for (const [index, option] of ['--oom-score-adj', '--timeout', '--hostname', '--umask'].entries()) {
    t.true(
      lines.some((line) => line.startsWith(`nsrs: invalid ${option} `)),
      `${index}: ${stderr}`,
    )
  }
})

test('arguments and variables that are not UTF-8 are refused, as Node would alter them', (t) => {
  const say = (script: string) => spawnSync('sh', ['-c', script, cli, ...box], { encoding: 'utf8' })
  const argument = say('"$0" "$@" -- echo fine "$(printf "\\377")"')
  t.deepEqual([argument.status, argument.stdout], [125, ''])
  t.regex(argument.stderr, /argument 9 contains bytes that are not UTF-8/)
  const variable = say('A=$(printf "\\377") "$0" "$@" -e A -- true')
  t.is(variable.status, 125)
  t.regex(variable.stderr, /variable A contains bytes that are not UTF-8/)
  // The sign itself is text as any other.
  t.is(say('A=\ufffd "$0" "$@" -e A -- sh -c "echo \\$A \ufffd"').stdout, '\ufffd \ufffd\n')
})

test('control characters in names and values are shown, and do not reach the terminal', (t) => {
  const stderr = (...words: string[]) => nsrs(['run', ...words]).stderr
  t.regex(stderr('--timeout', '\x1b]0;title\x07', 'true'), /^nsrs: invalid --timeout "\\x1b\]0;title\\x07"/)
  const unknown = stderr('--\x1b[2J\x9b\u202ex', 'true')
  t.regex(unknown, /^nsrs: unknown option '--\\x1b\[2J\\x9b\\u202ex'/)
  const image = stderr('--pull', 'never', 'a\x1b[2Jb\nnsrs: fake')
  t.false(/[\x1b]|^nsrs: fake/m.test(image), JSON.stringify(image))
})

test('--explain prints the plan and does nothing', (t) => {
  const path = join(temporary(), 'made')
  const { stdout, status } = nsrs([...box, '--explain', '--', 'touch', path])
  t.is(status, 0)
  t.regex(stdout, /touch/)
  const json = nsrs([...box, '--explain', '--format', 'json', '--', 'true']).stdout
  const plan = JSON.parse(json)
  t.true(plan.namespaces.private.includes('pid'))
  t.deepEqual(plan.process.args, ['true'])
})

test('the help fits a screen, has examples, and tells how to see every option', (t) => {
  const help = nsrs(['run', '--help'])
  t.is(help.status, 0)
  for (const word of ['--rootfs', '--publish', '--cap-add', '--explain', '--help-all', 'Examples:'])
    t.true(help.stdout.includes(word), word)
  t.true(help.stdout.split('\n').length <= 50, help.stdout)
  t.is(nsrs(['help', 'run']).stdout, help.stdout)
  const { stdout, status } = nsrs(['run', '--help-all'])
  t.is(status, 0)
  const names = Object.values({ ...flags, ...cliFlags }).map(({ flags }) => /--[\w-]+/.exec(flags)?.[0] ?? flags)
  t.deepEqual(
    names.filter((name) => !stdout.includes(name)),
    [],
  )
  t.regex(nsrs(['run', '--monotnic', '1', 'true']).stderr, /Did you mean --monotonic/)
  t.regex(nsrs(['run', '--time', '1', 'true']).stderr, /Did you mean one of --timeout, --timens\?/)
  const short = nsrs(['--help']).stdout.split('\n')
  t.true(short.length <= 24 && short.every((line) => line.length <= 80), short.join('\n'))
})
