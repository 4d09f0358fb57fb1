// PID 1: the command itself, or a small init; how both end.

import { asEach, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

asEach('the command is PID 1, and with --init its child', async (t, place) => {
  t.is(await place.output(['sh', '-c', 'echo $$']), '1')
  t.is(await place.output(['--init', 'sh', '-c', 'echo $$ $PPID']), '2 1')
})

for (const init of [[], ['--init'], ['--pid', 'host']]) {
  asEach(`exit codes and signals are the command's: nsrs run ${init.join(' ')}`, async (t, place) => {
    for (const code of [0, 1, 42, 125, 126, 127, 137, 255])
      t.is((await place.run([...init, 'sh', '-c', `exit ${code}`])).code, code)
    for (const [signal, code] of [
      ['KILL', 137],
      ['TERM', 143],
      ['SEGV', 139],
      ['ABRT', 134],
    ] as const) {
      const { code: seen } = await place.run([
        ...init,
        'perl',
        '-e',
        `$SIG{${signal}} = 'DEFAULT'; fork() ? (wait, exit(($? & 127) + 128)) : kill('${signal}', $$); sleep 1`,
      ])
      t.is(seen, code, signal)
    }
  })

  asEach(`signals to nsrs reach the command: nsrs run ${init.join(' ')}`, async (t, place) => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2'] as const) {
      const script = `$| = 1; $SIG{${signal.slice(3)}} = sub { print "caught"; exit 7 }; print "up\\n"; sleep 20`
      let pid = 0
      const ended = place.run([...init, 'perl', '-e', script], {
        started: (started) => {
          pid = started
        },
        timeout: 30_000,
      })
      await new Promise((resolve) => setTimeout(resolve, 500))
      process.kill(pid, signal)
      const { code, stdout } = await ended
      t.is(stdout, 'up\ncaught', signal)
      t.is(code, 7, signal)
    }
  })
}

asEach('the init reaps orphans', async (t, place) => {
  const script = 'for i in 1 2 3; do (sleep 0.05 &); done; sleep 0.4; grep -h "^State" /proc/[0-9]*/status'
  t.notRegex(await place.output(['--init', 'sh', '-c', script]), /zombie/)
  t.regex(
    await place.output([
      'perl',
      '-e',
      'for (1..3) { if (!fork) { if (!fork) { select undef, undef, undef, 0.05; exit } exit } } select undef, undef, undef, 0.4; system("grep -h ^State /proc/[0-9]*/status")',
    ]),
    /zombie/,
    'nobody else does',
  )
})

asEach('what the command leaves running ends with it', async (t, place) => {
  const mark = `${process.pid}${Date.now() % 100_000}`
  for (const init of [[], ['--init'], ['--pid', 'host']]) {
    await place.output([...init, 'sh', '-c', `setsid sleep 7${mark} & (setsid setsid sleep 7${mark} &) ; sleep 0.1`])
    await new Promise((resolve) => setTimeout(resolve, 100))
    t.is((await place.exec('pgrep', ['-f', `sleep 7${mark}`])).stdout, '', init.join(' '))
  }
})

asEach("a command in the host's PID namespace that ignores every signal ends with its time limit", async (t, place) => {
  const mark = `mark${process.pid}`
  const prctl = { x64: 157, arm64: 167 }[process.arch as 'x64' | 'arm64']
  const since = Date.now()
  const { code } = await place.run([
    '--pid',
    'host',
    '--timeout',
    '500ms',
    'perl',
    '-e',
    `syscall(${prctl}, 1, 0); $SIG{TERM} = 'IGNORE'; fork; sleep 30; # ${mark}`,
  ])
  t.is(code, 137)
  t.true(Date.now() - since < 5000)
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.is((await place.exec('pgrep', ['-f', mark])).stdout, '')
})

unless(noBusybox(), asEach, 'a command that is not there is told by the init as without', async (t, place) => {
  const rootfs = ['--rootfs', busyboxRoot(place)]
  for (const init of [[], ['--init']]) {
    t.is((await place.run([...rootfs, ...init, 'nowhere'])).code, 127)
    t.is((await place.run([...rootfs, ...init, '/etc'])).code, 126)
  }
})
