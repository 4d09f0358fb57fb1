import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import test from 'ava'
import manifest from '../../package.json' with { type: 'json' }
import { cli, nsrs } from '../helpers/cli.ts'

test('info tells version and parts, for people and for programs', (t) => {
  const facts = JSON.parse(nsrs(['info', '--format', 'json']).stdout)
  t.is(facts.version, manifest.version)
  t.regex(facts.executable, /nsrs-runtime$/)
  t.true(Array.isArray(facts.host))
  t.regex(nsrs(['info']).stdout, /^version +0\./)
})

test('doctor exits with 0 where containers run', (t) => {
  const { status, stdout } = nsrs(['doctor', '--format', 'json'])
  t.is(status, JSON.parse(stdout).some(({ verdict }: { verdict: string }) => verdict === 'failure') ? 1 : 0)
})

test('doctor takes no filter of its own for one of the surroundings', (t) => {
  const isFiltered = /^Seccomp:\t2$/m.test(readFileSync('/proc/self/status', 'utf8'))
  t.is(/; a seccomp filter is on/.test(nsrs(['doctor']).stdout), isFiltered)
})

test('a command that is unknown suggests', (t) => {
  const { status, stderr } = nsrs(['rnu'])
  t.is(status, 125)
  t.regex(stderr, /unknown command 'rnu'.*run/)
})

test('the version', (t) => {
  t.is(nsrs(['--version']).stdout, `${manifest.version}\n`)
})

test('a reader that goes away early is no failure to tell of', (t) => {
  const { stdout, stderr } = spawnSync('bash', ['-c', `"$0" "$1" doctor | head -n 1`, process.execPath, cli], {
    encoding: 'utf8',
  })
  t.is(stdout.split('\n').length, 2)
  t.is(stderr, '')
})
