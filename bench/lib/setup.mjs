import { execFileSync, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** A program on PATH, or undefined. */
export function which(name) {
  const directories = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`.split(':')
  return directories.map((directory) => join(directory, name)).find((path) => existsSync(path))
}

/** Everything the measurements need on the disk, in one directory that goes with them. */
export function prepare() {
  const busybox = which('busybox')
  if (busybox === undefined) throw new Error('busybox is missing: apt-get install busybox-static')
  const directory = mkdtempSync(join(tmpdir(), 'nsrs-bench-'))
  process.on('exit', () => rmSync(directory, { recursive: true, force: true }))
  const root = join(directory, 'root')
  makeRoot(root, busybox)
  return { directory, root, program: '/bin/true', limit: compileLimit(directory), runc: makeBundles(directory, root) }
}

function makeRoot(root, busybox) {
  for (const name of ['bin', 'dev', 'etc', 'proc', 'sys', 'tmp', 'root'])
    mkdirSync(join(root, name), { recursive: true })
  copyFileSync(busybox, join(root, 'bin/busybox'))
  for (const name of ['true', 'sh', 'sleep']) symlinkSync('busybox', join(root, 'bin', name))
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n')
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\n')
  for (const name of ['hosts', 'hostname', 'resolv.conf']) writeFileSync(join(root, 'etc', name), '')
}

/** The limit program, compiled anew each time: it is small. Undefined where there is no compiler. */
function compileLimit(directory) {
  const source = fileURLToPath(new URL('../limit/', import.meta.url))
  const files = readdirSync(source).filter((name) => name.endsWith('.c'))
  const output = join(directory, 'limit')
  const args = ['-O2', '-static', '-o', output, ...files.map((name) => join(source, name))]
  const { status, error } = spawnSync('gcc', args, { stdio: 'inherit' })
  if (error || status !== 0) {
    console.error('skipped: the limit program, gcc did not compile it')
    return undefined
  }
  return output
}

/** Bundles for runc: without a network namespace, and with one. */
function makeBundles(directory, root) {
  const program = which('runc')
  if (program === undefined) return undefined
  const bundles = {}
  for (const network of ['host', 'none']) {
    const bundle = join(directory, `bundle-${network}`)
    mkdirSync(bundle)
    execFileSync(program, ['spec', '--bundle', bundle])
    const path = join(bundle, 'config.json')
    const config = JSON.parse(execFileSync('cat', [path], { encoding: 'utf8' }))
    config.process.terminal = false
    config.process.args = ['/bin/true']
    config.root = { path: root, readonly: false }
    const kept = config.linux.namespaces.filter(({ type }) => type !== 'network' || network === 'none')
    config.linux.namespaces = kept.some(({ type }) => type === 'cgroup') ? kept : [...kept, { type: 'cgroup' }]
    writeFileSync(path, JSON.stringify(config))
    bundles[network] = bundle
  }
  return { program, state: join(directory, 'runc'), bundles }
}

/** The environment of every process that is measured: NODE_EXTRA_CA_CERTS slows the start of Node by some 80 ms. */
export function cleanEnvironment() {
  const { NODE_EXTRA_CA_CERTS: _, NODE_OPTIONS: __, ...env } = process.env
  return env
}
