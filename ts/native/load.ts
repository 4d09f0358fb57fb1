import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type * as Binding from '../binding.d.ts'
import { localError } from '../errors/nsrs-error.ts'

/** The addon, and the executables of the same package. */
export interface Native {
  binding: typeof Binding
  /** Path of nsrs-runtime, which makes containers. */
  executable: string
  /** Path of nsrs-image, which manages images. */
  image: string
  /** Where they are. */
  directory: string
}

const ADDON = 'nsrs.node'
const EXECUTABLE = 'nsrs-runtime'
const IMAGE = 'nsrs-image'

let loaded: Native | undefined

/**
 * The addon. It is loaded by the first call: importing the package does nothing, on any platform.
 *
 * It is looked for in `NSRS_NATIVE_DIR` if that is set; otherwise in the platform's package next to this one, in the `npm`
 * directory of a checkout, and wherever else the package manager has installed that package.
 */
export function native(): Native {
  loaded ??= load()
  return loaded
}

/** The packages that may fit this machine: only loading one tells for certain whether the C library is glibc or musl. */
function packages(): string[] {
  return ['gnu', 'musl'].map((abi) => `linux-${process.arch}-${abi}`)
}

function* candidates(require: NodeJS.Require): Generator<string> {
  const override = process.env.NSRS_NATIVE_DIR
  if (override) {
    yield override
    return
  }
  // In the bundled CLI this is a path, not a URL.
  const own = import.meta.url
  const here = dirname(own.startsWith('file:') ? fileURLToPath(own) : own)
  // The bundles are in dist/; in a checkout this file is one level deeper.
  const root = join(here, basename(here) === 'native' ? '../..' : '..')
  for (const name of packages()) {
    yield join(root, '..', '@nsrs', name)
    yield join(root, 'npm', name)
  }
  for (const name of packages()) {
    try {
      yield dirname(require.resolve(`@nsrs/${name}/package.json`))
    } catch {
      // Not installed; the next one may be.
    }
  }
}

function load(): Native {
  if (process.platform !== 'linux') {
    throw unsupported(`nsrs needs Linux, and this is ${process.platform}`, {
      hint: 'run it on Linux, or in a Linux virtual machine (WSL 2, Lima)',
    })
  }
  const require = createRequire(import.meta.url)
  let cause: unknown
  for (const directory of candidates(require)) {
    const addon = join(directory, ADDON)
    if (!existsSync(addon)) continue
    try {
      const binding = require(addon) as typeof Binding
      return { binding, executable: join(directory, EXECUTABLE), image: join(directory, IMAGE), directory }
    } catch (error) {
      cause ??= error
    }
  }
  throw missing(cause)
}

function missing(cause: unknown): Error {
  if (cause !== undefined) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    return unsupported(`cannot load the addon: ${reason}`, { cause, hint: 'reinstall nsrs on this machine' })
  }
  if (process.env.NSRS_NATIVE_DIR) {
    return unsupported(`no ${ADDON} in NSRS_NATIVE_DIR (${process.env.NSRS_NATIVE_DIR})`, {})
  }
  if (process.arch !== 'x64' && process.arch !== 'arm64') {
    return unsupported(`there is no prebuilt addon for ${process.arch}`, { hint: 'build it with npm run build' })
  }
  return unsupported(`the package @nsrs/linux-${process.arch}-gnu (or -musl) is not installed`, {
    hint: 'reinstall nsrs without --omit=optional; in a checkout, run npm run build',
  })
}

function unsupported(reason: string, more: { hint?: string; cause?: unknown }): Error {
  return localError({ id: 'load', code: 'ERR_NSRS_UNSUPPORTED_PLATFORM', step: 'load nsrs', reason, ...more })
}
