import type { CallerInfo } from '../binding.d.ts'
import { native } from '../native/load.ts'
import type { ContainerOptions } from '../options/types.ts'

/** The variables that count, with another root and on the host's tree. */
const names: (readonly string[] | undefined)[] = []

/** The calling process. Of its environment only what counts is read: each look costs, and to list it all the most. */
export function caller(options: Pick<ContainerOptions, 'rootfs' | 'env' | 'envHost'>): CallerInfo {
  const cwd = directory()
  if (options.envHost) return { cwd, env: { ...process.env } as Record<string, string> }
  const isHostTree = options.rootfs === undefined || options.rootfs === 'host'
  const index = Number(isHostTree)
  names[index] ??= native().binding.callerVariables(isHostTree)
  const env: Record<string, string> = {}
  const take = (name: string) => {
    const value = process.env[name]
    if (value !== undefined) env[name] = value
  }
  names[index].forEach(take)
  if (options.env !== undefined) {
    for (const name in options.env) if (options.env[name] === undefined) take(name)
  }
  return { cwd, env }
}

/** The caller's directory; empty where it was removed, which is wrong only in a call that needs it. */
function directory(): string {
  try {
    return process.cwd()
  } catch {
    return ''
  }
}
