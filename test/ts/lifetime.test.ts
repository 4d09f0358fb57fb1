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

test('a supervisor that died while Node was busy is not asked: the next call starts another', (t) => {
  const { stdout, stderr } = node(`
    import { execFileSync } from 'node:child_process'
    const { stdout: first } = await run('echo', ['first'], options)
    const pid = execFileSync('pgrep', ['-P', String(process.pid), 'nsrs|memfd'], { encoding: 'utf8' }).trim()
    process.kill(Number(pid), 'SIGKILL')
    execFileSync('sh', ['-c', 'until grep -q "^State:.Z" /proc/$0/status; do sleep 0.01; done', pid])
    const { stdout: second } = await run('echo', ['second'], options)
    console.log(first, second)
  `)
  t.deepEqual([stdout, stderr], ['first second\n', ''])
})

test('a supervisor that dies takes its containers along, and says so', (t) => {
  const { stdout, stderr } = node(`
    import { execFileSync } from 'node:child_process'
    const process_ = spawn('sleep', ['600'], options)
    await process_.ready
    execFileSync('pkill', ['-KILL', '-P', String(process.pid), 'nsrs|memfd'])
    await process_.wait().catch(({ code, message }) => console.log(code, message))
  `)
  t.regex(stdout, /^ERR_NSRS_SUPERVISOR_LOST .*killed by SIGKILL/, stderr)
})

test('a supervisor that dies before it has read a request is lost to that, too', (t) => {
  const { stdout, stderr } = node(`
    import { execFileSync } from 'node:child_process'
    await run('true', options)
    const pid = Number(execFileSync('pgrep', ['-P', String(process.pid), 'nsrs|memfd'], { encoding: 'utf8' }))
    process.kill(pid, 'SIGSTOP')
    const lost = run('true', options).catch(({ code }) => console.log(code))
    setTimeout(() => process.kill(pid, 'SIGKILL'), 50)
    await lost
  `)
  t.is(stdout, 'ERR_NSRS_SUPERVISOR_LOST\n', stderr)
})
