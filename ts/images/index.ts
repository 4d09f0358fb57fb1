import type { Readable, Writable } from 'node:stream'
import { wrongType } from '../options/validate.ts'
import { toWords } from './arguments.ts'
import { ImageTask } from './image-task.ts'
import type { Call, Verb } from './nsrs-image.ts'
import type * as Options from './options.ts'
import type * as Results from './results.ts'

/** What is read: the path of a file or a directory, bytes, or a stream. */
type Source = string | Uint8Array | Readable
/** What is written to: the path of a file, which appears when it is complete, or a stream, which is ended. */
type Target = string | Writable

/** What nsrs-image is given, beside the verb. */
type Given = Pick<Call, 'args' | 'input' | 'output'>

/** Calls nsrs-image, of which nothing is read before: importing nsrs stays as fast. Wrong arguments reject too. */
function task<Result>(
  verb: Verb,
  options: Options.ImageOptions,
  given: () => Given,
  result: (output: string) => Result,
): ImageTask<Result> {
  return new ImageTask(async (hear) => {
    const { args, ...streams } = given()
    options.signal?.throwIfAborted()
    const { execute } = await import('./nsrs-image.ts')
    return result(await execute({ verb, args: ['--format=json', ...args], ...streams, signal: options.signal, hear }))
  })
}

function asJson<Result>(output: string): Result {
  return JSON.parse(output) as Result
}

function first<Result>(output: string): Result {
  return (JSON.parse(output) as Result[])[0] as Result
}

/** The names of images, behind the options. */
function names(...texts: unknown[]): string[] {
  for (const text of texts)
    if (typeof text !== 'string' || text === '')
      throw wrongType('the name of an image', 'a string that is not empty', text)
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

/** A path that isn't taken for an option or a standard stream. */
function path(text: string, place: string): string {
  if (text.includes('\0')) throw wrongType(place, 'a path without null characters', text)
  return text.startsWith('-') ? `./${text}` : text
}

/** A stream may fail before it is looked at, and that is told by the task. */
function heard<Stream extends Readable | Writable>(stream: Stream): Stream {
  stream.on('error', () => {})
  return stream
}

function from(source: Source): { place: string; input?: Uint8Array | Readable } {
  if (typeof source === 'string' && source !== '') return { place: path(source, 'source') }
  if (source instanceof Uint8Array) return { place: '-', input: source }
  if (typeof (source as Readable | null)?.pipe === 'function') return { place: '-', input: heard(source as Readable) }
  throw wrongType('source', 'a path, a Uint8Array or a Readable', source)
}

function to(target: Target): { words: string[]; output?: Writable } {
  if (typeof target === 'string' && target !== '') return { words: [`--output=${path(target, 'target')}`] }
  if (typeof (target as Writable | null)?.write === 'function') return { words: [], output: heard(target as Writable) }
  throw wrongType('target', 'a path or a Writable', target)
}

/** Brings an image from a registry into the store, and unpacks it. What is there already isn't fetched again. */
export function pull(reference: string, options: Options.PullOptions = {}): ImageTask<Results.PulledImage> {
  const given = () => ({ args: [...toWords('pull', options), ...names(reference)] })
  return task('pull', options, given, asJson<Results.PulledImage>)
}

/** Brings an image of the store to a registry. What the registry has already isn't sent again. */
export function push(reference: string, options: Options.PushOptions = {}): ImageTask<Results.PushedImage> {
  const given = () => ({ args: [...toWords('push', options), ...names(reference, ...some(options.to))] })
  return task('push', options, given, asJson<Results.PushedImage>)
}

/** The images of the store by name, the newest first. One of which a part is missing is among them and says so. */
export function list(options: Options.ListOptions = {}): ImageTask<Results.ImageSummary[]> {
  const given = () => ({ args: [...toWords('list', options), ...names(...some(options.name))] })
  return task('images', options, given, asJson<Results.ImageSummary[]>)
}

/** Everything that is known of an image of the store, given by name, id or digest. */
export function inspect(reference: string, options: Options.ImageOptions = {}): ImageTask<Results.ImageDetails> {
  const given = () => ({ args: [...toWords('any', options), ...names(reference)] })
  return task('inspect', options, given, first<Results.ImageDetails>)
}

/** How an image came to be, the last step first. */
export function history(reference: string, options: Options.ImageOptions = {}): ImageTask<Results.ImageStep[]> {
  const given = () => ({ args: [...toWords('any', options), ...names(reference)] })
  return task('history', options, given, asJson<Results.ImageStep[]>)
}

/** Gives an image of the store a further name, or several. */
export function tag(
  reference: string,
  name: string | readonly string[],
  options: Options.ImageOptions = {},
): ImageTask<void> {
  const given = () => ({ args: [...toWords('any', options), ...names(reference, ...several(name))] })
  return task('tag', options, given, () => {})
}

/**
 * Takes names away, and with the last name of an image the image itself. Rejects with every name that isn't there; the others
 * are gone then.
 */
export function remove(
  reference: string | readonly string[],
  options: Options.RemoveOptions = {},
): ImageTask<Results.RemovedImages> {
  const given = () => ({ args: [...toWords('remove', options), ...names(...several(reference))] })
  return task('rmi', options, given, asJson<Results.RemovedImages>)
}

/** Brings in images from an archive of `docker save` or of an OCI layout, or from the directory of such a layout. */
export function load(source: Source, options: Options.LoadOptions = {}): ImageTask<Results.LoadedImage[]> {
  const given = () => {
    const { place, input } = from(source)
    return { args: [...toWords('load', options), '--', place], input }
  }
  return task('load', options, given, asJson<Results.LoadedImage[]>)
}

/** Writes images of the store as one archive. */
export function save(
  reference: string | readonly string[],
  target: Target,
  options: Options.SaveOptions = {},
): ImageTask<void> {
  const given = () => {
    const { words, output } = to(target)
    return { args: [...words, ...toWords('save', options), ...names(...several(reference))], output }
  }
  return task('save', options, given, () => {})
}

/** Makes an image of a root file system: a tar archive (plain, or packed by gzip or zstd), or a directory. */
function importImage(source: Source, options: Options.ImportOptions = {}): ImageTask<Results.LoadedImage> {
  const given = () => {
    const { place, input } = from(source)
    return { args: [...toWords('import', options), '--', place, ...some(options.name)], input }
  }
  return task('import', options, given, first<Results.LoadedImage>)
}

/** Writes the root file system of an image as one flat tar archive. */
function exportImage(reference: string, target: Target, options: Options.UnpackOptions = {}): ImageTask<void> {
  const given = () => {
    const { words, output } = to(target)
    return { args: [...words, ...toWords('unpack', options), ...names(reference)], output }
  }
  return task('export', options, given, () => {})
}

/** Removes images without a name, and what no image needs. */
export function prune(options: Options.PruneOptions = {}): ImageTask<Results.PrunedSpace> {
  return task('prune', options, () => ({ args: toWords('prune', options) }), asJson<Results.PrunedSpace>)
}

/** Verifies who we are to a registry, and keeps that where docker and podman do. */
export function login(options: Options.LoginOptions): ImageTask<Results.LoggedIn> {
  const given = () => {
    const words = toWords('login', options)
    for (const key of ['username', 'password'] as const)
      if (options[key] === undefined) throw wrongType(`option ${key}`, 'a line of text', undefined)
    return { args: [...words, '--', ...some(options.registry)], input: `${options.password}\n` }
  }
  return task('login', options, given, asJson<Results.LoggedIn>)
}

/** Forgets who we are to a registry. Resolves with whether anything was known. */
export function logout(options: Options.LogoutOptions = {}): ImageTask<boolean> {
  const given = () => ({ args: [...toWords('logout', options), '--', ...some(options.registry)] })
  return task('logout', options, given, (output) => asJson<{ known: boolean }>(output).known)
}

export { exportImage as export, importImage as import }
