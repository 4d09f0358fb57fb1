import type { Readable } from 'node:stream'
import type { ContainerOptions as NativeOptions } from '../binding.d.ts'

/** When an image is pulled before a container runs from it: each time, if it isn't in the store, or not at all. */
export type PullPolicy = 'always' | 'missing' | 'never'

/** Every field may also be given as `undefined`, which is the same as leaving it out. */
type Loose<T> = { [Key in keyof T]?: T[Key] | undefined }

/** How a container is made. */
export interface ContainerOptions extends Loose<Omit<NativeOptions, 'rootfs'>> {
  /**
   * The root file system: `'host'`, the host's own tree copy-on-write, a directory, or an image. `{ dir }` is always a
   * directory, even one that is named `host`. Default `'host'`.
   */
  rootfs?: string | { dir: string } | { image: string } | undefined
  /** When an image is pulled: each time, if it isn't in the store, or not at all. Default `'missing'`. */
  pull?: PullPolicy | undefined
}

/** Options that name an image: its own command can be run. */
export interface OfImage {
  rootfs: { image: string }
}

/** Where a standard stream goes: a pipe, where this process has its own, /dev/null, or a file descriptor. */
export type Stdio = 'pipe' | 'inherit' | 'ignore' | number

/** What both {@link run} and {@link spawn} take. */
export interface ProcessOptions extends ContainerOptions {
  /** Where the command's standard output goes. Default `'pipe'`. */
  stdout?: Stdio | undefined
  /** Where the command's standard error goes. Default `'pipe'`. */
  stderr?: Stdio | undefined
  /** Further file descriptors, 250 at most: the number in the command, and the one of this process that it is. */
  fds?: Record<number, number> | undefined
  /**
   * Ends the container when it is aborted: {@link killSignal} first and, {@link forceKillAfter} later, SIGKILL. Aborted
   * already, nothing is started and the call throws the signal's reason.
   */
  signal?: AbortSignal | undefined
  /** The signal that an abort and `kill()` send. Default: the image's, or `SIGTERM`. */
  killSignal?: string | number | undefined
  /** Milliseconds from an abort's {@link killSignal} to SIGKILL; `false`: never. Default 5000. */
  forceKillAfter?: number | false | undefined
}

/** What {@link spawn} takes. */
export interface SpawnOptions extends ProcessOptions {
  /** Where the command's standard input comes from. Default `'pipe'`. */
  stdin?: Stdio | undefined
}

/** What {@link run} takes. */
export interface RunOptions extends ProcessOptions {
  /** Where the command's standard input comes from. Default `'ignore'`: it is empty. */
  stdin?: Exclude<Stdio, 'pipe'> | undefined
  /** What the command reads from its standard input. */
  input?: string | Uint8Array | Readable | undefined
  /** Reject where the command fails. Default true. */
  reject?: boolean | undefined
  /** `'utf8'` for strings, `'buffer'` for bytes. Default `'utf8'`. */
  encoding?: 'utf8' | 'buffer' | undefined
  /** Most bytes kept of each stream; a command that writes more is killed. Default 100 MiB. */
  maxBuffer?: number | undefined
  /** Leave out the newline at the end of the output. Default true. */
  stripFinalNewline?: boolean | undefined
}

/** Everything that may stand in an options object. */
export type AnyOptions = Omit<RunOptions, 'stdin'> & SpawnOptions
