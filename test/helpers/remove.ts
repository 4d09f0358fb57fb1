import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'

/**
 * Removes a tree. Something of ours may still be at work in it: what brings layers to the disk goes on behind a pull.
 */
export function remove(path: string): void {
  try {
    rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 })
  } catch {
    const patiently = 'for i in $(seq 50); do rm -rf "$1" 2>/dev/null && exit; sleep 0.1; done; rm -rf "$1"'
    const remover = ['sh', '-c', patiently, 'sh', path]
    // Files of the ids of a range are root's to remove; without root they are removed by their root inside.
    const inside = ['unshare', '--user', '--map-root-user', '--map-auto']
    const [program = '', ...args] = process.getuid?.() === 0 ? remover : [...inside, ...remover]
    spawnSync(program, args, { stdio: 'inherit' })
  }
}
