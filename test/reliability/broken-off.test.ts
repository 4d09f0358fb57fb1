// Where descriptors run out, or the conversation with the supervisor breaks off, nobody waits forever, and only who needed
// what is missing fails.

import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ExecutionContext } from 'ava'
import { asEach, type Place, project, unless } from '../helpers/product.ts'
import { busyboxRoot, noBusybox } from '../helpers/roots.ts'

const library = JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)

/** Runs a program that uses the library, with at most so many open files, and returns what it calls `done` with. */
async function program(t: ExecutionContext, at: Place, files: number, body: string, env = {}): Promise<unknown> {
  t.timeout(60_000)
  const text = `
    import { openSync, closeSync } from 'node:fs'
    import { run, spawn } from ${library}
    const options = ${JSON.stringify({ rootfs: { dir: busyboxRoot(at) }, network: 'none' })}
    const ignored = { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' }
    const settled = async (promise) => {
      const [{ status, value, reason }] = await Promise.allSettled([promise])
      if (status === 'fulfilled') return value.stdout ?? value.signal ?? value.exitCode
      return { code: reason.code, id: reason.id, message: reason.message.slice(0, 300), hint: reason.hint }
    }
    const done = (what) => {
      process.stdout.write(JSON.stringify(what))
      process.exit()
    }
    ${body}`
  const node = [process.execPath, '--input-type=module', '-e', text]
  const limited = ['-c', `ulimit -n ${files} && exec "$@"`, 'sh', ...node]
  const { code, signal, stdout, stderr } = await at.exec('sh', limited, { timeout: 40_000, env })
  t.is(code, 0, `${signal}: ${stdout} ${stderr}`)
  return JSON.parse(stdout || 'null')
}

unless(noBusybox(), asEach, 'what Node has no descriptor for fails its own call', async (t, place) => {
  const [listed, terminal, other, next] = (await program(
    t,
    place,
    256,
    `
    await run('true', options)
    const script = 'sleep 1; echo x > /tmp/y'
    const listed = settled(run('sh', ['-c', script], { ...options, stdout: 'ignore', stderr: 'ignore', diff: true }))
    const other = settled(run('sh', ['-c', 'sleep 2; echo other'], options))
    const typed = spawn('sleep', ['600'], { ...options, tty: { cols: 80, rows: 24 } })
    const terminal = settled(typed.wait())
    const held = []
    try {
      for (;;) held.push(openSync('/dev/null'))
    } catch {}
    const results = await Promise.all([listed, terminal, other])
    held.forEach(closeSync)
    done([...results, await settled(run('echo', ['next'], options))])`,
  )) as { code: string; id: string; message: string; hint: string }[]
  t.like(listed, { code: 'ERR_NSRS_SETUP_FAILED', id: 'changes' })
  t.regex(listed?.message ?? '', /list of changes: .*no file descriptors left.*EMFILE/)
  t.regex(listed?.hint ?? '', /ulimit -n/)
  t.like(terminal, { code: 'ERR_NSRS_SETUP_FAILED', id: 'terminal' })
  t.regex(terminal?.message ?? '', /terminal: .*no file descriptors left.*EMFILE/)
  t.deepEqual([other, next] as unknown, ['other', 'next'])
})

unless(noBusybox(), asEach, 'what the supervisor has no descriptors for fails its own call', async (t, place) => {
  const { call, others, next } = (await program(
    t,
    place,
    256,
    `
    const others = Array.from({ length: 60 }, () => spawn('sleep', ['600'], { ...options, ...ignored }))
    await Promise.all(others.map(({ ready }) => ready))
    const ends = others.map((other) => settled(other.wait()))
    const fd = openSync('/dev/null')
    const fds = Object.fromEntries(Array.from({ length: 200 }, (_, index) => [index + 3, fd]))
    const call = await settled(run('true', { ...options, ...ignored, fds }))
    const next = await settled(run('echo', ['next'], options))
    for (const other of others) other.kill('SIGKILL')
    done({ call, next, others: await Promise.all(ends) })`,
  )) as { call: { code: string; id: string; message: string; hint: string }; others: string[]; next: string }
  t.like(call, { code: 'ERR_NSRS_SETUP_FAILED', id: 'descriptors' })
  t.regex(call.message, /the supervisor has no file descriptors left.*EMFILE/)
  t.regex(call.hint, /ulimit -n.* or pass fewer fds$/)
  t.deepEqual(others, Array(60).fill('SIGKILL'))
  t.is(next, 'next')
})

unless(noBusybox(), asEach, 'more problems than can be told are the first ones', async (t, place) => {
  const { errors, last, other } = (await program(
    t,
    place,
    1024,
    `
    const other = settled(run('sh', ['-c', 'sleep 1; echo other'], options))
    const ulimits = Array.from({ length: 400_000 }, (_, index) => 'x'.repeat(40) + index)
    const error = await run('true', { ...options, ulimits }).catch((error) => error)
    done({ errors: error.errors.length, last: error.errors.at(-1).message, other: await other })`,
  )) as { errors: number; last: string; other: string }
  t.true(errors > 1000, `${errors}`)
  t.is(last, `list every problem: there are ${400_000 - errors + 1} more`)
  t.is(other, 'other')
})

unless(noBusybox(), asEach, 'a supervisor that is not understood is ended, and who waits is told', async (t, place) => {
  const source = readdirSync(join(project, 'npm'))
    .map((name) => join(project, 'npm', name))
    .find((path) => readdirSync(path).includes('nsrs.node'))
  if (!source) return t.fail('the addon is not built')
  const native = place.make('native')
  for (const name of ['nsrs.node', 'nsrs-runtime', 'nsrs-image']) copyFileSync(join(source, name), join(native, name))
  const runtime = readFileSync(join(source, 'nsrs-runtime'))
  // The name of the first event, wherever the linker has put it.
  let places = 0
  for (let at = runtime.indexOf('Hello'); at >= 0; at = runtime.indexOf('Hello', at)) {
    runtime.write('Hullo', at)
    places++
  }
  t.true(places > 0, 'the names of events in the executable')
  writeFileSync(join(native, 'nsrs-runtime'), runtime)
  const lost = await program(t, place, 1024, "done(await settled(run('sleep', ['600'], options)))", {
    NSRS_NATIVE_DIR: native,
  })
  t.like(lost, { code: 'ERR_NSRS_SUPERVISOR_LOST', id: 'supervisor' })
})
