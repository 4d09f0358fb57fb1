import { spawnSync } from 'node:child_process'
import test from 'ava'
import { checkHost, explain, isSupported, NsrsError } from '../../ts/index.ts'
import { temporary } from '../helpers/host.ts'

test('this platform is supported', (t) => {
  t.true(isSupported())
})

test('findings have a verdict, and a fix where something is wrong', async (t) => {
  for (const finding of await checkHost()) {
    t.true(['ok', 'warning', 'failure'].includes(finding.verdict))
    if (finding.verdict !== 'ok') t.truthy(finding.fix, finding.name)
  }
  t.pass()
})

test('a plan is told and not carried out', async (t) => {
  const { text, plan } = await explain('touch', ['/tmp/nsrs-must-not-be'], { network: 'none' })
  t.regex(text, /touch/)
  t.is(typeof plan, 'object')
})

test("a plan that can't be is every problem", async (t) => {
  const error = await t.throwsAsync(explain('true', { hostname: ' ', umask: 'x' }), { instanceOf: NsrsError })
  t.is(error.errors.length, 2)
})

test('where the addon is missing, only calls throw, and say what to do', (t) => {
  const library = new URL('../../dist/index.js', import.meta.url).href
  const program = `
    import { isSupported, run } from ${JSON.stringify(library)}
    console.log(isSupported())
    await run('true').catch((error) => console.log(error.id, error.code, error.message))
  `
  const env = { ...process.env, NSRS_NATIVE_DIR: temporary() }
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8', env })
  t.regex(stdout, /^false\nload ERR_NSRS_UNSUPPORTED_PLATFORM load nsrs: no nsrs.node in NSRS_NATIVE_DIR \(.*\)\n$/)
})
