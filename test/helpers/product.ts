// The product as its users start it, as root and as an ordinary user, each time with a state directory of its own.

import { type SpawnOptions, spawn, spawnSync } from 'node:child_process'
import { chownSync, mkdirSync, mkdtempSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import test, { type ExecutionContext } from 'ava'
import { fastParse } from '../../cli/fast-parse.ts'
import { remove } from './remove.ts'
import { skip } from './skips.ts'

export const project = join(import.meta.dirname, '../..')
export const cli = join(project, 'dist/cli.cjs')
/** Runs containers through the library: see {@link Place.batch}. */
export const batchDriver = join(import.meta.dirname, 'batch.mjs')

/** Who runs the product. */
export interface Identity {
  name: string
  uid: number
  gid: number
  home: string
}

/** How a program ended. */
export interface Outcome {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

export interface ExecOptions {
  as?: Identity
  cwd?: string
  env?: Record<string, string | undefined>
  input?: string
  /** Name of a network namespace to run it in. */
  netns?: string | undefined
  /** Descriptors from 3 on. */
  fds?: number[]
  /** Milliseconds until it is killed. */
  timeout?: number
  /** Called with the process once it is started. */
  started?: (pid: number) => void
  /** Called with the process once it has written something. */
  wrote?: (pid: number) => void
}

/** A call of the library: what `run()` is given. */
export interface Job {
  command: string
  args?: string[]
  options?: Record<string, unknown>
}

/** What became of a {@link Job}: the result, or the error. */
export interface Done {
  exitCode?: number
  signal?: string
  stdout: string
  stderr: string
  /** With the option `diff`. */
  changes?: { kind: string; path: string; type: string }[]
  /** `error.code` of a failed start. */
  code?: string
  message?: string
  hint?: string
}

function lookup(name: string): Identity | undefined {
  const line = spawnSync('getent', ['passwd', name], { encoding: 'utf8' }).stdout.trim()
  if (!line) return undefined
  const [, , uid, gid, , home = '/'] = line.split(':')
  return { name, uid: Number(uid), gid: Number(gid), home }
}

function ordinaryUser(): Identity {
  const made = lookup('tester')
  if (made) return made
  spawnSync('useradd', ['--create-home', 'tester'], { stdio: 'inherit' })
  const user = lookup('tester')
  if (!user) throw new Error('useradd made no user tester')
  return user
}

export const isRoot = process.getuid?.() === 0
export const root: Identity = { name: 'root', uid: 0, gid: 0, home: '/root' }
/** `tester`, or whoever runs the tests without being root. */
export const user: Identity = isRoot
  ? ordinaryUser()
  : { ...userInfo(), name: userInfo().username, home: userInfo().homedir }

/** The environment of a caller: little, and nothing of the one who runs the tests. */
function environment(identity: Identity, extra: Record<string, string | undefined> = {}): NodeJS.ProcessEnv {
  const { PATH, NSRS_NATIVE_DIR, NSRS_TEST_RUN, LLVM_PROFILE_FILE, NODE_V8_COVERAGE } = process.env
  const path = `${PATH}:/usr/sbin:/sbin`
  // Where coverage is measured. The files are of whoever runs the tests.
  const counters = isRoot && identity.uid !== 0 ? {} : { LLVM_PROFILE_FILE, NODE_V8_COVERAGE }
  return {
    PATH: path,
    HOME: identity.home,
    USER: identity.name,
    LANG: 'C.UTF-8',
    NSRS_NATIVE_DIR,
    NSRS_TEST_RUN,
    ...counters,
    ...extra,
  }
}

/** The command line that runs a program as somebody else, in another network namespace. */
function prefix({ as, netns }: ExecOptions): string[] {
  const inside = netns ? ['nsenter', `--net=/run/netns/${netns}`, '--'] : []
  const other = as && isRoot && as.uid !== 0
  return other ? [...inside, 'setpriv', `--reuid=${as.uid}`, `--regid=${as.gid}`, '--init-groups', '--'] : inside
}

/** Runs a program to its end. */
export function exec(file: string, args: string[] = [], options: ExecOptions = {}): Promise<Outcome> {
  const [command = file, ...rest] = [...prefix(options), file, ...args]
  const as = options.as ?? (isRoot ? root : user)
  const spawned: SpawnOptions = {
    cwd: options.cwd ?? '/',
    env: environment(as, options.env),
    stdio: ['pipe', 'pipe', 'pipe', ...(options.fds ?? [])],
    timeout: options.timeout ?? 240_000,
    killSignal: 'SIGKILL',
  }
  return new Promise((resolve, reject) => {
    const child = spawn(command, rest, spawned)
    const chunks = { stdout: '', stderr: '' }
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      chunks.stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      chunks.stderr += text
    })
    child.stdout?.once('data', () => options.wrote?.(child.pid ?? -1))
    child.stdin?.on('error', () => {}).end(options.input ?? '')
    child.on('spawn', () => options.started?.(child.pid ?? -1))
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, ...chunks }))
  })
}

/** Runs a program that has to succeed, and returns what it wrote. */
export async function ok(file: string, args: string[] = [], options: ExecOptions = {}): Promise<string> {
  const { code, signal, stdout, stderr } = await exec(file, args, options)
  if (code !== 0) throw new Error(`${[file, ...args].join(' ')}: ${signal ?? code}: ${stderr}`)
  return stdout.trimEnd()
}

/** A place to run the product in: an identity, with a directory, a state directory and a store of images of its own. */
export class Place {
  readonly dir: string
  readonly state: string
  /** Its store of images. */
  readonly images: string
  constructor(
    readonly as: Identity,
    readonly netns?: string,
  ) {
    this.dir = mkdtempSync(join(tmpdir(), `nsrs-test-${as.name}-`))
    this.own(this.dir)
    this.state = join(this.dir, 'state')
    this.images = join(this.dir, 'images')
  }

  /** Gives a path to the identity. */
  own(path: string): string {
    if (isRoot) chownSync(path, this.as.uid, this.as.gid)
    return path
  }

  /** A new directory of the identity's. */
  make(name: string): string {
    const path = join(this.dir, name)
    mkdirSync(path, { recursive: true })
    return this.own(path)
  }

  options(options: ExecOptions = {}): ExecOptions {
    const env = { NSRS_STATE_DIR: this.state, NSRS_IMAGE_DIR: this.images, ...options.env }
    return { as: this.as, netns: this.netns, cwd: this.dir, ...options, env }
  }

  /** Runs any program as the identity. */
  exec(file: string, args: string[] = [], options: ExecOptions = {}): Promise<Outcome> {
    return exec(file, args, this.options(options))
  }

  /** `nsrs ARGS…`. */
  nsrs(args: string[], options: ExecOptions = {}): Promise<Outcome> {
    return this.exec(process.execPath, [cli, ...args], options)
  }

  /**
   * `nsrs run ARGS…` of a command, on the host's tree where no root is named, with `--` before it if that is left out; and
   * without a network where none is named: the default would be the host's bridge.
   */
  run(args: string[], options: ExecOptions = {}): Promise<Outcome> {
    const dashes = args.indexOf('--')
    // What stands behind the dashes is the command's, which may be nsrs again.
    const own = dashes < 0 ? args : args.slice(0, dashes)
    const named = own.some((arg) => /^--net(work)?$/.test(arg))
    const line = fastParse(['run', ...args])
    const at = args.length - (line?.args.length ?? 0)
    const words = line?.dashes === false ? [...args.slice(0, at), '--', ...args.slice(at)] : args
    return this.nsrs(['run', ...(named ? [] : ['--network', 'none']), ...words], options)
  }

  /** The output of an `nsrs run` that has to succeed. */
  async output(args: string[], options: ExecOptions = {}): Promise<string> {
    const { code, signal, stdout, stderr } = await this.run(args, options)
    if (code !== 0) throw new Error(`nsrs run ${args.join(' ')}: ${signal ?? code}: ${stderr}`)
    return stdout.trimEnd()
  }

  /** Runs many containers one after the other through the library, from one Node process. */
  async batch(jobs: Job[], options: ExecOptions & { together?: number } = {}): Promise<Done[]> {
    const { together = 1, ...rest } = options
    const input = JSON.stringify({
      together,
      jobs: jobs.map((job) => ({ ...job, options: { network: 'none', ...job.options } })),
    })
    const { code, signal, stdout, stderr } = await this.exec(process.execPath, [batchDriver], { ...rest, input })
    if (code !== 0) throw new Error(`the batch ended with ${signal ?? code}: ${stderr}`)
    return JSON.parse(stdout) as Done[]
  }

  remove(): void {
    remove(this.dir)
  }
}

/** A place that goes with the test. */
export function place(t: ExecutionContext, as: Identity, netns?: string): Place {
  const made = new Place(as, netns)
  t.teardown(() => made.remove())
  return made
}

type Body = (t: ExecutionContext, place: Place) => Promise<unknown>

/** A test as root. */
export function asRoot(title: string, body: Body): void {
  const full = `${title} (as root)`
  if (isRoot) test.serial(full, async (t) => body(t, place(t, root)))
  else skip(full, 'needs root')
}

/** A test as an ordinary user. */
export function asUser(title: string, body: Body): void {
  test.serial(`${title} (as an ordinary user)`, async (t) => body(t, place(t, user)))
}

/** A test as root and as an ordinary user. */
export function asEach(title: string, body: Body): void {
  asRoot(title, body)
  asUser(title, body)
}

/** A test that needs something of the host; `missing` says what is not there. */
export function unless(missing: string | undefined, kind: typeof asEach, title: string, body: Body): void {
  if (missing) skip(title, missing)
  else kind(title, body)
}

/** Is there such a program? */
export function has(program: string): boolean {
  return spawnSync('sh', ['-c', `PATH=$PATH:/usr/sbin:/sbin command -v ${program}`]).status === 0
}
