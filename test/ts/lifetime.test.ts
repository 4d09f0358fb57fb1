import { spawn as bare, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createInterface } from 'node:readline'
import test from 'ava'
import { busybox, until } from '../helpers/host.ts'

const root = busybox()
const library = new URL('../../dist/index.js', import.meta.url).href
const prelude = `
  import { run, spawn } from ${JSON.stringify(library)}
  const options = ${JSON.stringify({ rootfs: root, network: 'none' })}
`
const arguments_ = (program: string) => ['--input-type=module', '-e', prelude + program]

function node(program: string) {
  return spawnSync(process.execPath, arguments_(program), { encoding: 'utf8', timeout: 60_000 })
}

test('a container keeps Node alive, and its end lets it go', (t) => {
  const { stdout, status } = node(
    "run('sh', ['-c', 'sleep 0.2; echo late'], options).then(({ stdout }) => console.log(stdout))",
  )
  t.deepEqual([stdout, status], ['late\n', 0])
})

test('a container that is not referenced does not', (t) => {
  const { status } = node(
    "spawn('sleep', ['600'], { ...options, stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' }).unref()",
  )
  t.is(status, 0, 'else it is ended by the time limit of this test')
})

test('importing the package does nothing', (t) => {
  // Reading the module's own file is not of its doing.
  const print = 'console.log(process.getActiveResourcesInfo().filter((name) => !/^(CloseReq|PipeWrap)$/.test(name)))'
  t.is(node(print).stdout, '[]\n')
})

test('an error that nobody looks for is not lost', (t) => {
  const { stderr, status } = node("spawn('/bin/nope', options)")
  t.is(status, 1)
  t.regex(stderr, /ERR_NSRS_COMMAND_NOT_FOUND/)
})

test('kill -9 of Node ends its containers', async (t) => {
  const child = bare(process.execPath, arguments_("console.log((await spawn('sleep', ['600'], options).ready).pid)"))
  const lines = createInterface({ input: child.stdout })
  const pid = await new Promise<string>((resolve) => lines.once('line', resolve))
  t.true(existsSync(`/proc/${pid}`))
  child.kill('SIGKILL')
  t.true(await until(() => !existsSync(`/proc/${pid}`)))
})
