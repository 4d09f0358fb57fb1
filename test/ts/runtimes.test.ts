import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import test from 'ava'
import { busybox } from '../helpers/host.ts'
import { skip } from '../helpers/skips.ts'

const root = busybox()
const library = new URL('../../dist/index.js', import.meta.url).href

/** The same program in every runtime of JavaScript that is installed; it prints what it saw. */
const PROGRAM = `
  import process from 'node:process'
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
  const tty = () => run('tty', { ...box, tty: { cols: 80, rows: 24 } })
  const each = Array.from({ length: 40 }, (_, index) => (index % 2 ? tty() : run('echo', ['/dev/pts/0'], box)))
  const many = (await Promise.all(each)).filter(({ stdout }) => stdout.trim() === '/dev/pts/0')
  const code = await run('/bin/nope', box).catch((error) => error.code)
  const version = process.versions.bun ?? process.versions.deno ?? process.versions.node
  console.log(JSON.stringify([version, stdout, stderr, long.stdout.length, lines, many.length, code]))
`

const installed = fileURLToPath(new URL('../../.runtimes/bin', import.meta.url))

/** Each with the start of its version. */
const runtimes: Record<string, [version: string, program: string, ...args: string[]]> = {
  node: [process.versions.node, process.execPath, '--input-type=module', '-e', PROGRAM],
  node22: ['22.', 'node22', '--input-type=module', '-e', PROGRAM],
  node24: ['24.', 'node24', '--input-type=module', '-e', PROGRAM],
  bun: ['1.', 'bun', '-e', PROGRAM],
  deno: ['2.', 'deno', 'eval', PROGRAM],
}

for (const [name, [version, program, ...args]] of Object.entries(runtimes)) {
  const path = [installed, ...(process.env.PATH ?? '').split(delimiter)]
    .map((directory) => resolve(directory, program))
    .find((file) => existsSync(file))
  const title = `the library works in ${name}`
  if (path === undefined) {
    skip(title, `${name} is not installed`)
    continue
  }
  test(title, (t) => {
    const { stdout, stderr } = spawnSync(path, args, { encoding: 'utf8', timeout: 120_000 })
    const [running, ...seen] = stdout === '' ? [] : (JSON.parse(stdout) as [string, ...unknown[]])
    t.deepEqual(seen, ['in', 'err', 1e6, ['a', 'b', '/dev/pts/0'], 40, 'ERR_NSRS_COMMAND_NOT_FOUND'], stderr)
    t.true(running?.startsWith(version), running)
    t.log(`${name} ${running}`)
  })
}
