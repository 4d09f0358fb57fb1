import { spawn } from 'node:child_process'
import { which } from './lib/setup.mjs'

/** Waits for a program that Node spawns: for its exit, or with pipes until they are read to the end as well. */
function finished(command, args, stdio) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio })
    child.on('error', reject)
    child.stdout?.resume()
    child.stderr?.resume()
    child.on(stdio === 'ignore' ? 'exit' : 'close', (code) => {
      if (code === 0) resolve()
      else reject(new Error(`${command} ended with ${code}`))
    })
  })
}

const PIPES = ['ignore', 'pipe', 'pipe']
/** Beside the mount namespace; bubblewrap makes that one in any case. */
const UNSHARE = ['--mount', '--pid', '--uts', '--ipc', '--cgroup', '--fork', '--mount-proc']
const BWRAP = ['--unshare-pid', '--unshare-uts', '--unshare-ipc', '--unshare-cgroup']

/**
 * Every way to start the same program, each until its end. Those of one name but for what stands in brackets are the same
 * but for that.
 */
export function makeWays({ root, program, runc, layered }, { run, Container }) {
  const bare = `${root}${program}`
  const ignore = { stdout: 'ignore', stderr: 'ignore' }
  const nsrs = (options) => () => run(program, [], { rootfs: root, ...ignore, ...options })
  const tool = (name, args) => {
    const path = which(name)
    return path && (() => finished(path, args, 'ignore'))
  }
  const image = layered && { image: layered.name }
  let number = 0
  // No two are of one kind, so that none was prewarmed.
  const first = (rootfs) => () => nsrs({ network: 'host', rootfs, hostname: `first-${number++}` })()
  const bundle = (network) =>
    runc &&
    (() => {
      const args = ['--root', runc.state, 'run', '--bundle', runc.bundles[network], `bench-${process.pid}-${number++}`]
      return finished(runc.program, args, 'ignore')
    })
  let box
  const exec =
    Container &&
    (async () => {
      // It ends with the process that measures, and does not keep that.
      box ??= Container.create({ rootfs: { dir: root }, network: 'none' }).then((it) => it.unref())
      await (await box).exec(program, [], ignore)
    })
  // Between two of these nothing happens for a while, as between the commands of somebody who thinks.
  const paced = (way) => way && Object.assign(() => way(), { pauseMs: 5 })
  const inRoot = ['--bind', root, '/', '--proc', '/proc', '--dev', '/dev', program]
  return {
    spawn: () => finished(bare, [], 'ignore'),
    'spawn (paced)': paced(() => finished(bare, [], 'ignore')),
    'spawn (pipes)': () => finished(bare, [], PIPES),
    'spawn /bin/true': () => finished('/bin/true', [], 'ignore'),
    nsrs: nsrs({ network: 'host' }),
    'nsrs (pipes)': nsrs({ network: 'host', stdout: 'pipe', stderr: 'pipe' }),
    'nsrs (none)': nsrs({ network: 'none' }),
    'nsrs (bridge)': nsrs({ network: 'bridge' }),
    'nsrs (all eight)': nsrs({ network: 'none', userns: 'private', timens: 'private' }),
    'nsrs (host tree)': nsrs({ network: 'host', rootfs: 'host' }),
    'nsrs (directory)': nsrs({ network: 'host' }),
    'nsrs (image)': image && nsrs({ network: 'host', rootfs: image }),
    'nsrs (image in memory)': image && nsrs({ network: 'host', rootfs: image, rootfsTmpfs: true }),
    'nsrs (first, directory)': first(root),
    'nsrs (first, image)': image && first(image),
    'nsrs exec': exec,
    'nsrs exec (paced)': paced(exec),
    unshare: tool('unshare', [...UNSHARE, `--root=${root}`, program]),
    'unshare (net)': tool('unshare', [...UNSHARE, '--net', `--root=${root}`, program]),
    bwrap: tool('bwrap', [...BWRAP, ...inRoot]),
    'bwrap (all)': tool('bwrap', ['--unshare-all', ...inRoot]),
    runc: bundle('host'),
    'runc (none)': bundle('none'),
  }
}
