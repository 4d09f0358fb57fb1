import { stripVTControlCharacters, styleText } from 'node:util'

/** The exit code if nsrs itself failed, as opposed to the command; the same as docker's. */
export const FAILED = 125

/** A problem to print. */
export interface Problem {
  message: string
  hint?: string | undefined
  exitCode?: number
}

let isListening = false

/** Writes to standard output. If the reader closes it early (`nsrs doctor | head`), the process ends like any program. */
export function print(text: string): void {
  if (!isListening) {
    isListening = true
    process.stdout.on('error', (error: NodeJS.ErrnoException) => {
      process.exit(error.code === 'EPIPE' ? 141 : report([error]))
    })
  }
  process.stdout.write(text)
}

/** Prints each problem and its hint to standard error. Returns the exit code of the first. */
export function report(problems: readonly Problem[]): number {
  const isColoured = process.stderr.isTTY && !process.env.NO_COLOR && process.env.TERM !== 'dumb'
  const paint = (style: 'red' | 'cyan', text: string) => (isColoured ? styleText(style, text) : text)
  for (const { message, hint } of problems) {
    process.stderr.write(`${paint('red', 'nsrs:')} ${clean(message)}\n`)
    if (hint) process.stderr.write(`${paint('cyan', 'hint:')} ${clean(hint)}\n`)
  }
  return problems[0]?.exitCode ?? FAILED
}

/** What others chose may hold control characters, which must not reach the terminal. */
function clean(text: string): string {
  return stripVTControlCharacters(text).replace(/[\0-\x08\x0b-\x1f\x7f]/g, '')
}

/** Prints whatever was thrown. Returns the exit code. */
export function reportError(error: unknown): number {
  const { errors } = error as { errors?: readonly Problem[] }
  if (Array.isArray(errors)) return report(errors)
  return report([{ message: error instanceof Error ? error.message : String(error) }])
}
