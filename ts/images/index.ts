import type { Readable, Writable } from 'node:stream'
import { wrongType } from '../options/validate.ts'
import { toArguments } from './arguments.ts'
import { ImageTask } from './image-task.ts'
import type { Call, Verb } from './nsrs-image.ts'
import type * as Options from './options.ts'
import type * as Results from './results.ts'

/** What to read: the path of a file or directory, bytes, or a stream. */
type Source = string | Uint8Array | Readable
/** Where to write: the path of a file, which appears when it is complete, or a stream, which is ended. */
type Target = string | Writable

/** What nsrs-image is given besides the verb. */
type Invocation = Pick<Call, 'args' | 'input' | 'output'>

/** Runs nsrs-image. That module is loaded by the first call, to keep the import of nsrs fast. Invalid arguments reject. */
function task<Result>(
  verb: Verb,
  options: Options.ImageOptions,
  invocation: () => Invocation,
  result: (output: string) => Result,
): ImageTask<Result> {
  return new ImageTask(async (onEvent) => {
    const { args, ...streams } = invocation()
    options.signal?.throwIfAborted()
    const { execute } = await import('./nsrs-image.ts')
    return result(
      await execute({ verb, args: ['--format=json', ...args], ...streams, signal: options.signal, onEvent }),
    )
  })
}

function asJson<Result>(output: string): Result {
  return JSON.parse(output) as Result
}

function first<Result>(output: string): Result {
  return (JSON.parse(output) as Result[])[0] as Result
}

/** The names of images, after the options. */
function names(...texts: unknown[]): string[] {
  for (const text of texts)
    if (typeof text !== 'string' || text === '') throw wrongType('the name of an image', 'a non-empty string', text)
  for (const text of texts as string[])
    if (text.includes('\0')) throw wrongType('the name of an image', 'a string without null characters', text)
  return ['--', ...(texts as string[])]
}

function several(items: string | readonly string[]): readonly string[] {
  return Array.isArray(items) ? items : [items as string]
}

function some(item: string | undefined): string[] {
  return item === undefined ? [] : [item]
}

/** A path that can't be mistaken for an option or a standard stream. */
function path(text: string, place: string): string {
  if (text.includes('\0')) throw wrongType(place, 'a path without null characters', text)
  return text.startsWith('-') ? `./${text}` : text
}

/** Marks a stream's errors as handled: the task reports them, even one that comes before the stream is used. */
function handled<Stream extends Readable | Writable>(stream: Stream): Stream {
  stream.on('error', () => {})
  return stream
}

function from(source: Source): { place: string; input?: Uint8Array | Readable } {
  if (typeof source === 'string' && source !== '') return { place: path(source, 'source') }
  if (source instanceof Uint8Array) return { place: '-', input: source }
  if (typeof (source as Readable | null)?.pipe === 'function') return { place: '-', input: handled(source as Readable) }
  throw wrongType('source', 'a path, a Uint8Array or a Readable', source)
}

function to(target: Target): { flags: string[]; output?: Writable } {
  if (typeof target === 'string' && target !== '') return { flags: [`--output=${path(target, 'target')}`] }
  if (typeof (target as Writable | null)?.write === 'function')
    return { flags: [], output: handled(target as Writable) }
  throw wrongType('target', 'a path or a Writable', target)
}

/** Pulls an image from a registry and unpacks it. What is in the store already isn't fetched again. */
export function pull(reference: string, options: Options.PullOptions = {}): ImageTask<Results.PulledImage> {
  const invocation = () => ({ args: [...toArguments('pull', options), ...names(reference)] })
  return task('pull', options, invocation, asJson<Results.PulledImage>)
}

/** Pushes an image to a registry. What the registry has already isn't sent again. */
export function push(reference: string, options: Options.PushOptions = {}): ImageTask<Results.PushedImage> {
  const invocation = () => ({ args: [...toArguments('push', options), ...names(reference, ...some(options.to))] })
  return task('push', options, invocation, asJson<Results.PushedImage>)
}

/** Lists the images of the store by name, the newest first. A damaged image is listed with its `error`. */
export function list(options: Options.ListOptions = {}): ImageTask<Results.ImageSummary[]> {
  const invocation = () => ({ args: [...toArguments('list', options), ...names(...some(options.name))] })
  return task('images', options, invocation, asJson<Results.ImageSummary[]>)
}

/** Returns everything known about an image of the store, given by name, id or digest. */
export function inspect(reference: string, options: Options.ImageOptions = {}): ImageTask<Results.ImageDetails> {
  const invocation = () => ({ args: [...toArguments('any', options), ...names(reference)] })
  return task('inspect', options, invocation, first<Results.ImageDetails>)
}

/** Returns the history of an image, the last step first. */
export function history(reference: string, options: Options.ImageOptions = {}): ImageTask<Results.ImageStep[]> {
  const invocation = () => ({ args: [...toArguments('any', options), ...names(reference)] })
  return task('history', options, invocation, asJson<Results.ImageStep[]>)
}

/** Adds one or more names to an image of the store. */
export function tag(
  reference: string,
  name: string | readonly string[],
  options: Options.ImageOptions = {},
): ImageTask<void> {
  const invocation = () => ({ args: [...toArguments('any', options), ...names(reference, ...several(name))] })
  return task('tag', options, invocation, () => {})
}

/**
 * Removes names, and each image with its last name. If some names don't exist, it removes the others and rejects with an error
 * for each missing one.
 */
export function remove(
  reference: string | readonly string[],
  options: Options.RemoveOptions = {},
): ImageTask<Results.RemovedImages> {
  const invocation = () => ({ args: [...toArguments('remove', options), ...names(...several(reference))] })
  return task('rmi', options, invocation, asJson<Results.RemovedImages>)
}

/** Loads images from an archive made by `docker save`, or from an OCI layout as an archive or a directory. */
export function load(source: Source, options: Options.LoadOptions = {}): ImageTask<Results.LoadedImage[]> {
  const invocation = () => {
    const { place, input } = from(source)
    return { args: [...toArguments('load', options), '--', place], input }
  }
  return task('load', options, invocation, asJson<Results.LoadedImage[]>)
}

/** Writes images of the store to one archive. */
export function save(
  reference: string | readonly string[],
  target: Target,
  options: Options.SaveOptions = {},
): ImageTask<void> {
  const invocation = () => {
    const { flags, output } = to(target)
    return { args: [...flags, ...toArguments('save', options), ...names(...several(reference))], output }
  }
  return task('save', options, invocation, () => {})
}

/** Makes an image from a root file system: a tar archive (plain, gzip or zstd) or a directory. */
function importImage(source: Source, options: Options.ImportOptions = {}): ImageTask<Results.LoadedImage> {
  const invocation = () => {
    const { place, input } = from(source)
    return { args: [...toArguments('import', options), '--', place, ...some(options.name)], input }
  }
  return task('import', options, invocation, first<Results.LoadedImage>)
}

/** Writes the root file system of an image to one flat tar archive. */
function exportImage(reference: string, target: Target, options: Options.UnpackOptions = {}): ImageTask<void> {
  const invocation = () => {
    const { flags, output } = to(target)
    return { args: [...flags, ...toArguments('unpack', options), ...names(reference)], output }
  }
  return task('export', options, invocation, () => {})
}

/** Reclaims disk space: removes images without a name and everything that no image needs. */
export function prune(options: Options.PruneOptions = {}): ImageTask<Results.PrunedSpace> {
  return task('prune', options, () => ({ args: toArguments('prune', options) }), asJson<Results.PrunedSpace>)
}

/** Logs in to a registry and stores the credentials where docker and podman do. */
export function login(options: Options.LoginOptions): ImageTask<Results.LoggedIn> {
  const invocation = () => {
    const flags = toArguments('login', options)
    for (const key of ['username', 'password'] as const)
      if (options[key] === undefined) throw wrongType(`option ${key}`, 'a line of text', undefined)
    return { args: [...flags, '--', ...some(options.registry)], input: `${options.password}\n` }
  }
  return task('login', options, invocation, asJson<Results.LoggedIn>)
}

/** Removes the stored credentials of a registry. Resolves with whether there were any. */
export function logout(options: Options.LogoutOptions = {}): ImageTask<boolean> {
  const invocation = () => ({ args: [...toArguments('logout', options), '--', ...some(options.registry)] })
  return task('logout', options, invocation, (output) => asJson<{ known: boolean }>(output).known)
}

export { exportImage as export, importImage as import }
