import type { ContainerReport, ExitReport, ResourceUsage } from './binding.d.ts'
import { signalName } from './options/signals.ts'

/** One path that a command added, modified or deleted. */
export interface Change {
  kind: 'added' | 'modified' | 'deleted'
  /** Absolute path in the container; bytes that are no UTF-8 are replaced. */
  path: string
  /** All bytes of the path in hexadecimal, where it is no UTF-8. */
  pathHex?: string
  /** What it is now; of what was deleted, what it was. */
  type: 'file' | 'directory' | 'link' | 'fifo' | 'socket' | 'device' | 'unknown'
  /** Of what was modified, in what. */
  differs?: ('type' | 'content' | 'mode' | 'owner' | 'xattrs' | 'links')[]
  /** How many other names (hard links) the modified file has, which keep their content. */
  otherNames?: number
  /** Why it could give somebody more rights than the command had; `nsrs apply` brings such a file only when told to. */
  hazards?: ('set-user-id' | 'set-group-id' | 'capabilities' | 'device')[]
}

/** How a command ended. */
export interface Exit {
  /** Its exit code; `undefined` if a signal ended it. */
  exitCode: number | undefined
  /** The signal that ended it, such as `SIGKILL`. */
  signal: string | undefined
  /** Its time limit ended it. */
  timedOut: boolean
  /** Its `AbortSignal` ended it. */
  isCanceled: boolean
  /** Milliseconds from the call to the end. */
  durationMs: number
  /** Processor time and memory of the command and of the processes it waited for. */
  usage: ResourceUsage
  /** What it changed of its root file system, by path, with the option `diff`. */
  changes: Change[] | undefined
}

/** How a command ended, and what it wrote. The names are execa's. */
export interface Result<Output = string> extends Exit {
  /** What it wrote to standard output; empty where that went elsewhere. */
  stdout: Output
  /** What it wrote to standard error; empty where that went elsewhere. */
  stderr: Output
  /** It was killed because it wrote more than `maxBuffer`. */
  isMaxBuffer: boolean
  /** Its exit code is not 0, or something else than itself ended it. */
  failed: boolean
  /** Command and arguments, as a shell would take them. */
  command: string
  /** What the container was given; `undefined` if it never ran. */
  container: ContainerReport | undefined
}

/** The addon's report in the words of this API. */
export function toExit(report: ExitReport, changes: string | undefined, isCanceled: boolean): Exit {
  return {
    exitCode: report.exitCode,
    signal: report.signal === undefined ? undefined : signalName(report.signal),
    timedOut: report.timedOut,
    isCanceled,
    durationMs: report.durationMs,
    usage: report.usage,
    changes: changes === undefined ? undefined : (JSON.parse(changes) as Change[]),
  }
}

const PLAIN = /^[\w@%+=:,./-]+$/

/** Command and arguments as a shell would take them. */
export function commandLine(command: string, args: readonly string[]): string {
  const quote = (word: string) => (PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)
  return args.length === 0 ? quote(command) : `${quote(command)} ${args.map(quote).join(' ')}`
}
