import { closeSync, writeSync } from 'node:fs'
import { canUseDescriptors } from './pipe-streams.ts'

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
  closeSync(fd)
  return true
}
