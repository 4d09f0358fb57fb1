import type { CallerInfo } from './binding.d.ts'
import { native } from './native.ts'

let names: readonly string[] | undefined

/**
 * The calling process. Of its environment only what the container may be given is read: listing it all costs more than
 * the rest of the call.
 */
export function caller(options: {
  envHost?: boolean | undefined
  env?: Record<string, string | undefined> | undefined
}): CallerInfo {
  const cwd = directory()
  if (options.envHost) return { cwd, env: { ...process.env } as Record<string, string> }
  names ??= native().binding.callerVariables()
  const env: Record<string, string> = {}
  const take = (name: string) => {
    const value = process.env[name]
    if (value !== undefined) env[name] = value
  }
  names.forEach(take)
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
