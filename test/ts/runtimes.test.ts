import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import test from 'ava'
import { busybox } from '../helpers/host.ts'
import { skip } from '../helpers/skips.ts'

const root = busybox()
const library = new URL('../../dist/index.js', import.meta.url).href

/** The same program in every runtime of JavaScript that is installed; it prints what it saw. */
const PROGRAM = `
  import { run, spawn } from ${JSON.stringify(library)}
  const box = ${JSON.stringify({ rootfs: root, network: 'none' })}
  const { stdout, stderr } = await run('sh', ['-c', 'cat; echo err >&2'], { ...box, input: 'in' })
  const long = await run('cat', { ...box, input: 'x'.repeat(1e6) })
  const cat = spawn('cat', box)
  cat.stdin.end('a\\nb\\n')
  const lines = []
  for await (const line of cat) lines.push(line)
  const shell = spawn('tty', { ...box, tty: { cols: 80, rows: 24 } })
  for await (const line of shell) lines.push(line)
  const many = await Promise.all(Array.from({ length: 20 }, (_, index) => run('echo', [String(index)], box)))
  const code = await run('/bin/nope', box).catch((error) => error.code)
  console.log(JSON.stringify([stdout, stderr, long.stdout.length, lines, many.length, code]))
`

const runtimes = {
  node: [process.execPath, '--input-type=module', '-e', PROGRAM],
  bun: ['bun', '-e', PROGRAM],
  deno: ['deno', 'eval', PROGRAM],
}

const isInstalled = (program: string) =>
  program.startsWith('/') || (process.env.PATH ?? '').split(delimiter).some((path) => existsSync(join(path, program)))

for (const [name, [program = '', ...args]] of Object.entries(runtimes)) {
  const title = `the library works in ${name}`
  if (!isInstalled(program)) {
    skip(title, `${name} is not installed`)
    continue
  }
  test(title, (t) => {
    const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', timeout: 60_000 })
    const expected = ['in', 'err', 1e6, ['a', 'b', '/dev/pts/0'], 20, 'ERR_NSRS_COMMAND_NOT_FOUND']
    t.is(stdout, `${JSON.stringify(expected)}\n`, stderr)
  })
}
