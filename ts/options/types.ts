import type { Readable } from 'node:stream'
import type { EnterSpec, Spec } from '../spec.d.ts'

/** When the image is pulled before a container runs from it: always, if it isn't in the store, or never. */
export type PullPolicy = 'always' | 'missing' | 'never'

/** Every field may also be `undefined`, which is the same as leaving it out. */
type Loose<T> = { [Key in keyof T]?: T[Key] | undefined }

/** What of a spec a call says elsewhere than in its options. */
type Elsewhere = 'args' | 'caller' | 'stays' | 'preserveFds' | 'ownPipes' | 'changesForm'

/** The options of a container that the core takes. */
export type CoreOptions = Loose<Omit<Spec, Elsewhere>>

/** How a container is made. Names and text forms are docker's and podman's where those have the option. */
export interface ContainerOptions extends Omit<CoreOptions, 'rootfs'> {
  /**
   * The root file system: `'host'` (the host's own tree, copy-on-write), the path of a directory, or an image. `{ dir }` is
   * always a directory, even if it is named `host`. Default `'host'`.
   */
  rootfs?: string | { dir: string } | { image: string } | undefined
  /** When to pull the image: always, if it isn't in the store, or never. Default `'missing'`. */
  pull?: PullPolicy | undefined
}

/** Options whose root is an image, so that the command may be left to the image. */
export interface OfImage {
  rootfs: { image: string }
}

/** What a standard stream is: a pipe, this process's own stream, /dev/null, or a file descriptor of this process. */
export type Stdio = 'pipe' | 'inherit' | 'ignore' | number

/** Where a process's streams go, and how it is ended. */
export interface StreamOptions {
  /** Where the command's standard output goes. Default `'pipe'`. */
  stdout?: Stdio | undefined
  /** Where the command's standard error goes. Default `'pipe'`. */
  stderr?: Stdio | undefined
  /** More file descriptors for the command, up to 250: its number there, and the descriptor of this process. */
  fds?: Record<number, number> | undefined
  /**
   * Ends the command when it is aborted, with the container that was made for it: first by {@link killSignal}, and after
   * {@link forceKillAfter} by SIGKILL. If it is already aborted, nothing is started and the call throws the signal's reason.
   */
  signal?: AbortSignal | undefined
  /** The signal sent by an abort and by `kill()`. Default: the image's stop signal, otherwise `SIGTERM`. */
  killSignal?: string | number | undefined
  /** Milliseconds between an abort's {@link killSignal} and SIGKILL; `false` sends no SIGKILL. Default 5000. */
  forceKillAfter?: number | false | undefined
}

/** What both {@link run} and {@link spawn} take. */
export interface ProcessOptions extends ContainerOptions, StreamOptions {}

/** What {@link spawn} takes. */
export interface SpawnOptions extends ProcessOptions {
  /** Where the command's standard input comes from. Default `'pipe'`. */
  stdin?: Stdio | undefined
}

/** What a call that collects its output takes. */
export interface CollectOptions {
  /** Where the command's standard input comes from. Default `'ignore'`: empty. */
  stdin?: Exclude<Stdio, 'pipe'> | undefined
  /** What to write to the command's standard input. */
  input?: string | Uint8Array | Readable | undefined
  /** Reject if the command fails. Default true. */
  reject?: boolean | undefined
  /** `'utf8'` for strings, `'buffer'` for bytes. Default `'utf8'`. */
  encoding?: 'utf8' | 'buffer' | undefined
  /** The most bytes to collect from each stream; a command that writes more is killed. Default 100 MiB. */
  maxBuffer?: number | undefined
  /** Strip the final newline from the output. Default true. */
  stripFinalNewline?: boolean | undefined
}

/** What {@link run} takes. */
export interface RunOptions extends ProcessOptions, CollectOptions {}

/** How a process that enters a container is started. What is left out is as the container's own command has it. */
export interface EnterOptions extends Loose<Omit<EnterSpec, Elsewhere>>, StreamOptions {}

/** What {@link Container.spawn} takes. */
export interface EnterSpawnOptions extends EnterOptions {
  /** Where the command's standard input comes from. Default `'pipe'`. */
  stdin?: Stdio | undefined
}

/** What {@link Container.exec} takes. */
export interface ExecOptions extends EnterOptions, CollectOptions {}

/** What {@link Container.create} takes. A terminal belongs to a process that somebody talks to: those that enter have one. */
export interface CreateOptions extends Omit<ContainerOptions, 'tty'> {
  /**
   * Ends the container when it is aborted. If it is already aborted, nothing is created and the call throws the signal's reason.
   */
  signal?: AbortSignal | undefined
}

/** What {@link Container.stop} takes. */
export interface StopOptions {
  /** Milliseconds after which the container is killed. Default 10,000, as docker's. */
  timeout?: number | undefined
}

/** Every option of a process that enters a container. */
export type AnyEnterOptions = Omit<ExecOptions, 'stdin'> & EnterSpawnOptions

/** Every option of every call. */
export type AnyOptions = Omit<RunOptions, 'stdin'> & SpawnOptions

/** The options that the core doesn't take. */
export type OwnOptions = Exclude<keyof AnyOptions, keyof Spec>
