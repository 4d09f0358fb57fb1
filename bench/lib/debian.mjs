import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { createReadStream, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { which } from './setup.mjs'

/** What is in each layer of the image, the lowest first; the last takes the rest. */
const LAYERS = [
  ['usr/lib/x86_64-linux-gnu', 'usr/lib/aarch64-linux-gnu'],
  ['usr/lib'],
  ['usr/share/locale', 'usr/share/doc'],
  ['usr/share'],
  ['usr'],
  ['.'],
]
/** Makes a root of some 220 MB and 10 000 files. */
const PACKAGES = 'perl,python3-minimal,vim-tiny,curl,git'
/** What is needed here and by the ways that are compared. */
const PROGRAMS = ['mmdebstrap', 'docker-registry', 'skopeo', 'umoci', 'curl', 'zstd', 'tar', 'mkfs.ext4']
/** How a layer is packed, as builders of images do it by default. */
const PACKERS = { gzip: ['gzip', '-6', '-n', '-c'], zstd: ['zstd', '-3', '-q', '-c'] }

export const digestOf = (path) =>
  new Promise((resolve, reject) => {
    const hash = createHash('sha256')
    createReadStream(path)
      .on('data', (piece) => hash.update(piece))
      .on('error', reject)
      .on('end', () => resolve(hash.digest('hex')))
  })

/** The suite of this machine's Debian, whose packages its sources lead to. */
const suite = () => /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'stable'

/** Debian, installed anew by mmdebstrap, as one archive for each layer. */
async function makeLayers(directory) {
  const whole = join(directory, 'whole')
  execFileSync('mmdebstrap', ['--quiet', '--variant=apt', `--include=${PACKAGES}`, suite(), whole], {
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  const layers = []
  for (const [index, names] of LAYERS.entries()) {
    const path = join(directory, `layer-${index}.tar`)
    const there = names.filter((name) => statSync(join(whole, name), { throwIfNoEntry: false }) !== undefined)
    // What a layer below has already is no part of the later one.
    const others = LAYERS.slice(0, index)
      .flat()
      .map((name) => `--exclude=./${name}/*`)
    const args = ['-C', whole, '--numeric-owner', '--xattrs', '--sort=name', '--one-file-system', ...others]
    execFileSync('tar', [...args, '-cf', path, ...there.map((name) => (name === '.' ? '.' : `./${name}`))])
    layers.push({ path, diffId: await digestOf(path), size: statSync(path).size })
  }
  execFileSync('rm', ['-rf', whole])
  return layers
}

/** An image of these layers as an OCI layout; returns its blobs, the lowest layer first. */
export async function makeImage(directory, layers, packing) {
  const blobs = join(directory, 'blobs/sha256')
  mkdirSync(blobs, { recursive: true })
  const put = async (path) => {
    const [digest, { size }] = [await digestOf(path), statSync(path)]
    renameSync(path, join(blobs, digest))
    return { digest: `sha256:${digest}`, size }
  }
  const putJson = (document) => {
    const path = join(directory, 'document')
    writeFileSync(path, JSON.stringify(document))
    return put(path)
  }
  const packed = []
  for (const layer of layers) {
    const path = join(directory, 'layer')
    const [program, ...args] = PACKERS[packing]
    execFileSync('sh', ['-c', `"$@" <"$0" >"$OUT"`, layer.path, program, ...args], {
      env: { ...process.env, OUT: path },
    })
    packed.push({ mediaType: `application/vnd.oci.image.layer.v1.tar+${packing}`, ...(await put(path)) })
  }
  const arch = { x64: 'amd64', arm64: 'arm64' }[process.arch] ?? process.arch
  const config = await putJson({
    architecture: arch,
    os: 'linux',
    config: { Cmd: ['/bin/bash'], Env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'] },
    rootfs: { type: 'layers', diff_ids: layers.map(({ diffId }) => `sha256:${diffId}`) },
  })
  const mediaType = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = await putJson({
    schemaVersion: 2,
    mediaType,
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
    layers: packed,
  })
  const annotations = { 'org.opencontainers.image.ref.name': 'latest' }
  writeFileSync(
    join(directory, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ mediaType, ...manifest, annotations }] }),
  )
  writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  return packed
}

/** A port that is free just now. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

const answers = (port) =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
    socket.on('close', () => socket.destroy())
    setTimeout(() => socket.end(), 100)
  })

/** Debian's registry on loopback, with its data in this directory, until we end. Returns host and port. */
async function startRegistry(directory) {
  const port = await freePort()
  mkdirSync(directory)
  const config = join(directory, 'config.yml')
  const storage = `filesystem: {rootdirectory: ${join(directory, 'data')}}`
  writeFileSync(
    config,
    `version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {${storage}}\nhttp: {addr: 127.0.0.1:${port}}\n`,
  )
  const child = spawn('docker-registry', ['serve', config], { stdio: 'ignore' })
  child.unref()
  process.on('exit', () => child.kill('SIGKILL'))
  for (let tries = 0; !(await answers(port)); tries++) {
    if (tries > 200 || child.exitCode !== null) throw new Error('docker-registry did not start')
    await sleep(50)
  }
  return `127.0.0.1:${port}`
}

async function prepare(directory) {
  const tars = join(directory, 'tars')
  mkdirSync(tars, { recursive: true })
  const layers = await makeLayers(tars)
  const host = await startRegistry(join(directory, 'registry'))
  const images = {}
  for (const packing of Object.keys(PACKERS)) {
    const layout = join(directory, `layout-${packing}`)
    const blobs = await makeImage(layout, layers, packing)
    const name = `${host}/debian:${packing}`
    execFileSync('skopeo', ['copy', '-q', '--dest-tls-verify=false', `oci:${layout}:latest`, `docker://${name}`])
    execFileSync('rm', ['-rf', layout])
    images[packing] = {
      name,
      manifest: `http://${host}/v2/debian/manifests/${packing}`,
      blobs: blobs.map(({ digest }) => `http://${host}/v2/debian/blobs/${digest}`),
    }
  }
  execFileSync('rm', ['-rf', tars])
  const size = layers.reduce((sum, layer) => sum + layer.size, 0)
  return { images, megabytes: Math.round(size / 1e6), layers: layers.length }
}

let prepared

/**
 * A registry with a real Debian in it, as `gzip` and as `zstd`, each of several layers; undefined where a program is
 * missing, which is said. The first call takes half a minute or more.
 */
export function prepareDebian(directory) {
  const missing = PROGRAMS.filter((name) => which(name) === undefined)
  if (missing.length > 0) {
    console.error(`skipped: images, for there is no ${missing.join(', ')}`)
    return undefined
  }
  prepared ??= prepare(join(directory, 'debian'))
  return prepared
}
