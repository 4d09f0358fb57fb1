import { styleText } from 'node:util'
import { escapeLines, escapeText, toJson } from './escape.ts'

/** The exit code if nsrs itself failed, as opposed to the command; the same as docker's. */
export const FAILED = 125

/** A problem to print. */
export interface Problem {
  message: string
  hint?: string | undefined
  exitCode?: number
  /** The same in the words of the command line, if it names options. */
  shell?: { message: string; hint?: string | undefined }
}

let isListening = false

/** Writes our own text to standard output. If the reader closes it early (`nsrs doctor | head`), the process ends like any program. */
export function print(text: string): void {
  if (!isListening) {
    isListening = true
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      process.exit(error.code === 'EPIPE' ? 141 : report([error]))
    })
  }
  process.stdout.write(text)
}

/** Prints text of several lines to standard output. */
export function printLines(text: string): void {
  print(escapeLines(text))
}

/** Prints a value to standard output as JSON. */
export function printJson(value: unknown): void {
  print(`${toJson(value)}\n`)
}

/** Prints each problem and its hint to standard error. Returns the exit code of the first. */
export function report(problems: readonly Problem[]): number {
  for (const problem of problems) {
    const { message, hint } = problem.shell ?? problem
    writeLabeled('nsrs:', 'red', message)
    if (hint) reportHint(hint)
  }
  return problems[0]?.exitCode ?? FAILED
}

/** Prints a hint to standard error. */
export function reportHint(hint: string): void {
  writeLabeled('hint:', 'cyan', hint)
}

function writeLabeled(label: string, color: 'red' | 'cyan', text: string): void {
  const isColored = process.stderr.isTTY && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
  process.stderr.write(`${isColored ? styleText(color, label) : label} ${escapeText(text)}\n`)
}

/** Prints whatever was thrown. Returns the exit code. */
export function reportError(error: unknown): number {
  const { errors } = error as { errors?: readonly Problem[] }
  if (Array.isArray(errors)) return report(errors)
  const message = error instanceof Error ? error.message : String(error)
  // An error of option types has a line for each problem.
  return report(message.split('\n').map((line) => ({ message: line })))
}
