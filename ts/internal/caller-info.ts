import { native } from '../native/load.ts'
import type { ContainerOptions } from '../options/types.ts'
import type { Caller } from '../spec.d.ts'

/** The names of the variables that are passed on: [0] in any other root, [1] on the host's tree. */
const names: (readonly string[] | undefined)[] = []

/** The calling process. Only the variables that are needed are read: each access is slow, listing all the slowest. */
export function callerInfo(options: Pick<ContainerOptions, 'rootfs' | 'env' | 'envHost'>): Caller {
  const cwd = workingDirectory()
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
    for (const [name, value] of Object.entries(options.env)) if (value === undefined) take(name)
  }
  return { cwd, env }
}

/** The working directory; empty if it was removed, which is an error only if the call needs it. */
function workingDirectory(): string {
  try {
    return process.cwd()
  } catch {
    return ''
  }
}
