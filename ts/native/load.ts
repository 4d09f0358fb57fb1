import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type * as Binding from '../binding.d.ts'
import { ownError } from '../errors/nsrs-error.ts'

/** The addon, and the executables that travel with it. */
export interface Native {
  binding: typeof Binding
  /** nsrs-runtime: makes containers. */
  executable: string
  /** nsrs-image: handles images. */
  image: string
  directory: string
}

const ADDON = 'nsrs.node'
const EXECUTABLE = 'nsrs-runtime'
const IMAGE = 'nsrs-image'

let loaded: Native | undefined

/**
 * The addon, loaded at the first call: importing the package does nothing, on every platform.
 *
 * It is looked for in `NSRS_NATIVE_DIR`, in the package for this platform beside this one, in the `npm` directory of a
 * checkout, and wherever else the package manager has put that package.
 */
export function native(): Native {
  loaded ??= load()
  return loaded
}

/** The names of packages that may fit; only the loader of the C library can tell glibc from musl for certain. */
function packages(): string[] {
  return ['gnu', 'musl'].map((abi) => `linux-${process.arch}-${abi}`)
}

function* candidates(require: NodeJS.Require): Generator<string> {
  const fixed = process.env.NSRS_NATIVE_DIR
  if (fixed) {
    yield fixed
    return
  }
  // The bundled CLI has a path here, not a URL.
  const own = import.meta.url
  const here = dirname(own.startsWith('file:') ? fileURLToPath(own) : own)
  // Bundled it is in dist/, and in a checkout this file is one deeper.
  const root = join(here, basename(here) === 'native' ? '../..' : '..')
  for (const name of packages()) {
    yield join(root, '..', '@nsrs', name)
    yield join(root, 'npm', name)
  }
  for (const name of packages()) {
    try {
      yield dirname(require.resolve(`@nsrs/${name}/package.json`))
    } catch {
      // Not installed: the next may be.
    }
  }
}

function load(): Native {
  if (process.platform !== 'linux') {
    throw unsupported(`nsrs makes Linux containers, and this is ${process.platform}`, {
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
    return unsupported(`the addon can't be loaded: ${reason}`, { cause, hint: 'install nsrs again on this machine' })
  }
  if (process.env.NSRS_NATIVE_DIR) {
    return unsupported(`NSRS_NATIVE_DIR is ${process.env.NSRS_NATIVE_DIR}, and no ${ADDON} is there`, {})
  }
  if (process.arch !== 'x64' && process.arch !== 'arm64') {
    return unsupported(`there is no prebuilt addon for ${process.arch}`, { hint: 'build it: npm run build' })
  }
  return unsupported(`the package @nsrs/linux-${process.arch}-gnu (or -musl) is not installed`, {
    hint: 'install nsrs again without --omit=optional; in a checkout run npm run build',
  })
}

function unsupported(detail: string, more: { hint?: string; cause?: unknown }): Error {
  return ownError('ERR_NSRS_UNSUPPORTED_PLATFORM', 'load nsrs', detail, more)
}
