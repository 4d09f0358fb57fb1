import type { ContainerReport, ResourceUsage } from './binding.d.ts'
import type { Ended } from './internal/task.ts'
import { signalName } from './options/signals.ts'

/** One path that a command added, modified or deleted. */
export interface Change {
  kind: 'added' | 'modified' | 'deleted'
  /** Absolute path in the container. Bytes that aren't UTF-8 are replaced by U+FFFD. */
  path: string
  /** The path's bytes in hexadecimal, if it isn't UTF-8. */
  pathHex?: string
  /** Its type now; for a deleted path, the type it had. */
  type: 'file' | 'directory' | 'link' | 'fifo' | 'socket' | 'device' | 'unknown'
  /** What differs, if it was modified. */
  differs?: ('type' | 'content' | 'mode' | 'owner' | 'xattrs' | 'links')[]
  /** How many other hard links a modified file has; they keep the old content. */
  otherNames?: number
  /** Why it could give someone more rights than the command had. `nsrs apply` skips such files unless told otherwise. */
  hazards?: ('set-user-id' | 'set-group-id' | 'capabilities' | 'device')[]
}

/** How a command ended. */
export interface Exit {
  /** Its exit code; `undefined` if a signal ended it. */
  exitCode: number | undefined
  /** The signal that ended it, such as `SIGKILL`. */
  signal: string | undefined
  /** It was killed because it exceeded its time limit. */
  timedOut: boolean
  /** Its `AbortSignal` was aborted. */
  isCanceled: boolean
  /** Milliseconds from the call to the end. */
  durationMs: number
  /** Processor time and memory of the command and of the processes it waited for. */
  usage: ResourceUsage
  /** With the option `diff`: what it changed in its root file system, sorted by path. */
  changes: Change[] | undefined
}

/** How a command ended, and its output. The names are those of execa. */
export interface Result<Output = string> extends Exit {
  /** Its standard output; empty if that was not a pipe. */
  stdout: Output
  /** Its standard error; empty if that was not a pipe. */
  stderr: Output
  /** It was killed because it wrote more than `maxBuffer`. */
  isMaxBuffer: boolean
  /** Its exit code is not 0, or it was ended by something other than itself. */
  failed: boolean
  /** Command and arguments, quoted for a shell. */
  command: string
  /** What the container was given; `undefined` if the command never ran. */
  container: ContainerReport | undefined
}

/** Converts the outcome of a task. */
export function toExit({ exit, changes, isCanceled }: Ended): Exit {
  return {
    exitCode: exit.exitCode,
    signal: exit.signal === undefined ? undefined : signalName(exit.signal),
    timedOut: exit.timedOut,
    isCanceled,
    durationMs: exit.durationMs,
    usage: exit.usage,
    changes: changes === undefined ? undefined : (JSON.parse(changes) as Change[]),
  }
}

const PLAIN = /^[\w@%+=:,./-]+$/

/** Command and arguments, quoted for a shell. */
export function commandLine(command: string, args: readonly string[]): string {
  const quote = (word: string) => (PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)
  return args.length === 0 ? quote(command) : `${quote(command)} ${args.map(quote).join(' ')}`
}
