// PID 1: the command itself, or a small init; how both end.

import { asEach, type Place, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

/** Whether no process has this in its command line any more, at the latest after some seconds. */
async function isGone(place: Place, text: string): Promise<boolean> {
  for (let look = 0; look < 100; look++) {
    if ((await place.exec('pgrep', ['-f', text])).stdout === '') return true
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  return false
}

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
      const script = `$| = 1; $SIG{${signal.slice(3)}} = sub { print "caught"; exit 7 }; print "up\\n"; sleep 100`
      const { code, stdout } = await place.run([...init, 'perl', '-e', script], {
        wrote: (pid) => process.kill(pid, signal),
      })
      t.is(stdout, 'up\ncaught', signal)
      t.is(code, 7, signal)
    }
  })
}

asEach('the init reaps orphans', async (t, place) => {
  const states = 'grep -hs "^State" /proc/[0-9]*/status'
  const orphans = 'for i in 1 2 3; do (sleep 0.05 &); done'
  const gone = 'for i in $(seq 300); do grep -qs "^Name:.sleep" /proc/[0-9]*/status || break; sleep 0.1; done'
  t.notRegex(await place.output(['--init', 'sh', '-c', `${orphans}; ${gone}; ${states}`]), /zombie/)
  const perl = `
    for (1..3) { if (!fork) { if (!fork) { exit } exit } }
    for (1..300) { last if \`${states}\` =~ /zombie/; select undef, undef, undef, 0.1 }
    system q(${states})`
  t.regex(await place.output(['perl', '-e', perl]), /zombie/, 'nobody else does')
})

asEach('what the command leaves running ends with it', async (t, place) => {
  const mark = `${process.pid}${Date.now() % 100_000}`
  for (const init of [[], ['--init'], ['--pid', 'host']]) {
    const left = `setsid sleep 7${mark} & (setsid setsid sleep 7${mark} &)`
    const running = `until [ "$(pgrep -fc "^sleep 7${mark}")" = 2 ]; do sleep 0.05; done`
    await place.output([...init, 'sh', '-c', `${left}; ${running}`])
    t.true(await isGone(place, `sleep 7${mark}`), init.join(' '))
  }
})

asEach("a command in the host's PID namespace that ignores every signal ends with its time limit", async (t, place) => {
  const mark = `mark${process.pid}`
  const prctl = { x64: 157, arm64: 167 }[process.arch as 'x64' | 'arm64']
  const { code } = await place.run([
    '--pid',
    'host',
    '--timeout',
    '500ms',
    'perl',
    '-e',
    `syscall(${prctl}, 1, 0); $SIG{TERM} = 'IGNORE'; fork; sleep 1000; # ${mark}`,
  ])
  t.is(code, 137)
  t.true(await isGone(place, mark))
})

unless(noBusybox(), asEach, 'a command that is not there is told by the init as without', async (t, place) => {
  const rootfs = ['--rootfs', busyboxRoot(place)]
  for (const init of [[], ['--init']]) {
    t.is((await place.run([...rootfs, ...init, 'nowhere'])).code, 127)
    t.is((await place.run([...rootfs, ...init, '/etc'])).code, 126)
  }
})
