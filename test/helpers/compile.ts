import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** Compiles a program of test/security/programs to this path, without shared libraries: it runs in any root. */
export function compile(name: string, path: string): void {
  const source = fileURLToPath(new URL(`../security/programs/${name}.c`, import.meta.url))
  execFileSync('cc', ['-static', '-O1', '-Wall', '-o', path, source])
}
