import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { prepareDebian } from '../lib/debian.mjs'
import { imageProgram, timed } from '../lib/programs.mjs'
import { interleave } from '../lib/rounds.mjs'
import { makeVolume } from '../lib/volume.mjs'

/** Trees of each round stay until the end, so there are not many. */
const MOST_ROUNDS = 6
const ACCEPT = 'Accept: application/vnd.oci.image.manifest.v1+json'
const UNPACKERS = { gzip: 'gzip -dc', zstd: 'zstd -dc' }
/** Every layer at the same time, each into its own directory, as nsrs has them. */
const PIPELINES = `to=$1 unpack=$2; shift 2; n=0
for url; do n=$((n + 1)); mkdir "$to/$n"; curl -sf "$url" | $unpack | tar -x --numeric-owner -C "$to/$n" & done; wait`
const COPY = `skopeo copy -q --src-tls-verify=false "docker://$1" "oci:$2:l" && umoci unpack --image "$2:l" "$3" 2>/dev/null`

/** The most memory that a process has had, in kB. */
function peak(pid) {
  try {
    return Number(/^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
  } catch {
    // It has just ended.
    return 0
  }
}

/**
 * Has the next way find what is found by each: the registry's blobs and the programs in memory, and memory for its files that
 * was in use before. In a virtual machine the first use of a page costs its host some 5 µs, more than to write it: without this
 * the rows told who writes more pages (a pull keeps the blobs), not who is faster.
 */
function prepareMemory({ images }) {
  execFileSync('sync')
  writeFileSync('/proc/sys/vm/drop_caches', '1')
  for (const program of ['curl', 'gzip', 'zstd', 'tar', 'skopeo', 'umoci'])
    execFileSync(program, ['--version'], { stdio: 'ignore' })
  for (const { blobs } of Object.values(images)) execFileSync('curl', ['-sf', ...blobs], { stdio: 'ignore' })
}

/** From a registry on loopback to a root that can be run, beside other programs that do that; and once more. */
export async function images({ options, setup, wanted, calm, progress }) {
  const debian = await prepareDebian(setup.directory)
  if (debian === undefined) return { unit: 'ms', samples: {}, facts: {} }
  const volume = makeVolume(setup.directory, 'pulled')
  const nsrs = imageProgram(options.package)
  let number = 0
  const fresh = () => {
    const path = join(volume.path, `${++number}`)
    mkdirSync(path)
    return path
  }
  const pull = async (store, { name }) => {
    prepareMemory(debian)
    const took = await nsrs(store, ['pull', '--quiet', name])
    // What it brings to the disk behind our back is not to disturb the next one.
    await nsrs(store, ['settle'])
    return [took]
  }
  const peer = async (command, args) => {
    prepareMemory(debian)
    return [await timed('sh', ['-c', command, 'sh', ...args])]
  }
  const { gzip } = debian.images
  const kept = join(fresh(), 'store')
  await pull(kept, gzip)
  const ways = {
    'skopeo + umoci, gzip': () => {
      const to = fresh()
      return peer(COPY, [gzip.name, join(to, 'layout'), join(to, 'bundle')])
    },
    'nsrs pull, again': async () => [await nsrs(kept, ['pull', '--quiet', gzip.name])],
    'curl, the manifest': async () => [await timed('curl', ['-sfI', '-H', ACCEPT, gzip.manifest])],
  }
  for (const [packing, unpacker] of Object.entries(UNPACKERS)) {
    const image = debian.images[packing]
    ways[`nsrs pull, ${packing}`] = () => pull(join(fresh(), 'store'), image)
    ways[`curl | tar, ${packing}`] = () => peer(PIPELINES, [fresh(), unpacker, ...image.blobs])
  }
  const series = Object.entries(ways)
    .filter(([name]) => wanted(name))
    .map(([name, turn]) => ({ name, turn }))
  const rounds = Math.min(MOST_ROUNDS, Math.max(2, Math.ceil(options.rounds / 10)))
  const samples = await interleave(series, { rounds, calm, onRound: progress })
  volume.remove()
  return { unit: 'ms', samples, facts: { megabytes: debian.megabytes, layers: debian.layers } }
}

/** The most memory that a pull takes. */
export async function imageMemory({ options, setup, wanted }) {
  const samples = {}
  const debian = await prepareDebian(setup.directory)
  const nsrs = imageProgram(options.package)
  for (const packing of debian === undefined ? [] : Object.keys(UNPACKERS)) {
    const name = `pull VmHWM, ${packing}`
    if (!wanted(name)) continue
    const store = join(setup.directory, `store-${packing}`)
    let most = 0
    const watch = (pid) => {
      most = Math.max(most, peak(pid))
    }
    await nsrs(store, ['pull', '--quiet', debian.images[packing].name], { watch })
    await nsrs(store, ['settle'])
    samples[name] = [[most]]
  }
  return { unit: 'kB', samples, facts: {} }
}
