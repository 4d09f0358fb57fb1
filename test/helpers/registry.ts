// Docker's registry on loopback, and images in it that other tools have made.

import { execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { temporary } from './host.ts'
import { has } from './product.ts'

const TOOLS = ['docker-registry', 'skopeo', 'umoci', 'htpasswd', 'busybox', 'python3']

/** Why there can be no registry; `undefined` if there can. */
export function noRegistry(): string | undefined {
  const missing = TOOLS.filter((tool) => !has(tool))
  if (missing.length === 0) return undefined
  return `${missing.join(', ')} missing (Debian: docker-registry, skopeo, umoci, apache2-utils, busybox-static, python3)`
}

export const USER = 'gustav'
export const PASSWORD = 'pass:w0rd ä'

/** Runs a tool that has to succeed, and returns what it wrote. */
export function tool(name: string, ...args: string[]): string {
  return execFileSync(name, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trimEnd()
}

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

async function freePort(): Promise<number> {
  const server = createServer()
  const port = await listening(server)
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** A registry that ends with this process; `isPrivate`: only for {@link USER}. Returns its address. */
export async function registry({ isPrivate = false } = {}): Promise<string> {
  const directory = temporary('nsrs-registry-')
  const at = (name: string) => join(directory, name)
  const address = `127.0.0.1:${await freePort()}`
  let config = `version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: ${at('data')}}\nhttp:\n  addr: ${address}\n`
  if (isPrivate) {
    writeFileSync(at('htpasswd'), tool('htpasswd', '-Bbn', USER, PASSWORD))
    config += `auth:\n  htpasswd: {realm: test, path: ${at('htpasswd')}}\n`
  }
  writeFileSync(at('config.yml'), config)
  const log = openSync(at('log'), 'w')
  const child = spawn('docker-registry', ['serve', at('config.yml')], { stdio: ['ignore', log, log] })
  child.unref()
  process.once('exit', () => child.kill('SIGKILL'))
  for (let tries = 0; ; tries++) {
    if (
      await fetch(`http://${address}/v2/`).then(
        () => true,
        () => false,
      )
    )
      return address
    if (tries > 400) throw new Error(readFileSync(at('log'), 'utf8'))
    await sleep(50)
  }
}

/** An image in an OCI layout, made by umoci: BusyBox in one layer, and one of noise for each size. As skopeo names it. */
export function source(...sizes: number[]): string {
  const directory = temporary('nsrs-source-')
  const at = (name: string) => join(directory, name)
  const image = `${at('oci')}:image`
  tool('umoci', 'init', '--layout', at('oci'))
  tool('umoci', 'new', '--image', image)
  const add = (...what: string[]) => {
    tool('tar', '--owner=0', '--group=0', '--sort=name', '-cf', at('layer.tar'), ...what)
    tool('umoci', 'raw', 'add-layer', '--image', image, at('layer.tar'))
  }
  mkdirSync(at('root/bin'), { recursive: true })
  copyFileSync('/bin/busybox', at('root/bin/busybox'))
  symlinkSync('busybox', at('root/bin/sh'))
  add('-C', at('root'), '.')
  for (const [index, size] of sizes.entries()) {
    writeFileSync(at(`noise${index}`), randomBytes(size))
    add('-C', directory, `noise${index}`)
  }
  tool('umoci', 'config', '--image', image, '--config.cmd', '/bin/sh', '--config.env', 'A=b')
  return `oci:${image}`
}

/** Copies an image into a registry, by skopeo. */
export function publish(image: string, reference: string, ...more: string[]): void {
  tool('skopeo', 'copy', '-q', '--dest-tls-verify=false', ...more, image, `docker://${reference}`)
}

/** The digest that a registry has under a name, by skopeo. */
export function digestOf(reference: string): string {
  return tool('skopeo', 'inspect', '--tls-verify=false', '--format', '{{.Digest}}', `docker://${reference}`)
}

/** The same registry at another address, where each connection gives so many bytes a second. */
export async function slowed(address: string, bytesPerSecond: number): Promise<string> {
  const [host = '', port = ''] = address.split(':')
  const server = createServer((client) => {
    const upstream = connect(Number(port), host)
    for (const socket of [client, upstream]) {
      socket.unref()
      socket.on('error', () => {})
      socket.on('close', () => {
        client.destroy()
        upstream.destroy()
      })
    }
    client.pipe(upstream)
    upstream.on('data', (chunk) => {
      upstream.pause()
      client.write(chunk)
      setTimeout(() => upstream.resume(), (chunk.length / bytesPerSecond) * 1000).unref()
    })
    upstream.on('end', () => client.end())
  })
  server.unref()
  return `127.0.0.1:${await listening(server)}`
}

/** Processes that pull this image. */
export function pulling(reference: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      return line.includes('\0pull\0') && line.endsWith(`\0--\0${reference}\0`)
    } catch {
      return false
    }
  })
}

/** Another tool reads an image out of a store of ours, every byte of it; returns its manifest. */
export function readBySkopeo(store: string, name: string): { layers: { digest: string }[] } {
  const image = `oci:${store}:${name}`
  tool('skopeo', 'copy', '-q', image, `dir:${temporary('nsrs-copy-')}`)
  return JSON.parse(tool('skopeo', 'inspect', '--raw', image))
}

/** Every blob of a store is what its name says; returns how many there are. */
export function checkBlobs(store: string): number {
  const directory = join(store, 'blobs/sha256')
  const names = existsSync(directory) ? readdirSync(directory) : []
  for (const name of names) {
    const digest = createHash('sha256')
      .update(readFileSync(join(directory, name)))
      .digest('hex')
    if (digest !== name) throw new Error(`${name} is ${digest}`)
  }
  return names.length
}
