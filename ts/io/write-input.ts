import { writeSync } from 'node:fs'
import type { Readable, Writable } from 'node:stream'
import { canUseDescriptors, closePipe } from './pipe-streams.ts'

/** This many bytes fit into any empty pipe, so writing them never blocks. */
const SMALL = 4096

/** Writes a small input into an empty pipe and closes it, without a stream. Returns false if the input isn't small. */
export function writeSmallInput(fd: number, bytes: Uint8Array): boolean {
  if (!canUseDescriptors || bytes.length > SMALL) return false
  try {
    if (bytes.length > 0) writeSync(fd, bytes)
  } catch {
    // The command has closed its standard input.
  }
  closePipe(fd)
  return true
}

/**
 * Calls back if a stream that is piped into another fails or is closed before its end, once the other is destroyed. That the
 * other takes no more is no failure.
 */
export function watchInput(input: Readable, stream: Writable, onFailure: (error: unknown) => void): void {
  let isEnded = input.readableEnded === true
  const fail = (error: unknown) => {
    stream.destroy()
    onFailure(error)
  }
  const onClose = () => {
    if (!isEnded && !stream.destroyed) fail(input.errored ?? prematureClose())
  }
  input.on('error', fail)
  input.once('end', () => {
    isEnded = true
  })
  input.once('close', onClose)
  // Its events may have come before anybody listened.
  if (input.destroyed) queueMicrotask(onClose)
}

function prematureClose(): Error {
  const error = new Error('the stream of option input was closed before its end')
  return Object.assign(error, { code: 'ERR_STREAM_PREMATURE_CLOSE' })
}
