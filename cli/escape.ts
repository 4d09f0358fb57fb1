/** C0 and C1 control characters, DEL, and the characters of Unicode that reorder text or break lines; the same as in
 * crates/base/src/text.rs. */
const UNSAFE = /[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

const NAMED: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }

/**
 * Text on one line that may contain what others chose, such as names and paths, safe to print on a terminal: unsafe characters
 * become visible escapes (`\x1b`, `\n`, `\u202e`), as in git and ls.
 */
export function escapeText(text: string): string {
  return text.replace(UNSAFE, (character) => {
    const code = character.charCodeAt(0).toString(16)
    return NAMED[character] ?? (code.length > 2 ? `\\u${code.padStart(4, '0')}` : `\\x${code.padStart(2, '0')}`)
  })
}

/** The same in double quotes, with quotes and backslashes escaped too. */
export function quote(text: string): string {
  return `"${escapeText(text.replace(/["\\]/g, '\\$&'))}"`
}

/** The same for text of several lines. */
export function escapeLines(text: string): string {
  return text.split('\n').map(escapeText).join('\n')
}

/** A value as JSON of several lines, with the unsafe characters that JSON leaves alone escaped too. */
export function toJson(value: unknown): string {
  const escapeAsJson = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  return JSON.stringify(value, null, 2)
    .split('\n')
    .map((line) => line.replace(UNSAFE, escapeAsJson))
    .join('\n')
}
