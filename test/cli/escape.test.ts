import { readFileSync } from 'node:fs'
import test from 'ava'
import { escapeLines, escapeText, quote, toJson } from '../../cli/escape.ts'

/** What the executables are held to as well (crates/base/src/text.rs); `escaped` has the ends of ranges. */
interface Expected {
  escaped: [number, number][]
  texts: [string, string][]
}

const expected: Expected = JSON.parse(readFileSync(new URL('../helpers/escapes.json', import.meta.url), 'utf8'))

test('unsafe characters become visible, and all others stay', (t) => {
  for (const [text, seen] of expected.texts) t.is(escapeText(text), seen)
  const codes = Array.from({ length: 0x110000 }, (_, code) => code).filter((code) => code < 0xd800 || code > 0xdfff)
  const isEscaped = (code: number) => expected.escaped.some(([first, last]) => first <= code && code <= last)
  const isSeen = (code: number) => escapeText(String.fromCodePoint(code)) !== String.fromCodePoint(code)
  t.deepEqual(
    codes.filter((code) => isSeen(code) !== isEscaped(code)),
    [],
  )
})

test('quoted text shows where it ends', (t) => {
  t.is(quote('a "b" \\x1b\x1b'), '"a \\"b\\" \\\\x1b\\x1b"')
})

test('text of several lines keeps its lines', (t) => {
  t.is(escapeLines('one\x1b\n\ntwo\t\n'), 'one\\x1b\n\ntwo\\t\n')
})

test('JSON is safe to show and has the same meaning', (t) => {
  const value = { 'a\x1b': ['\x7f\x9b', '\u202e\n', 'é'], b: { c: null } }
  const text = toJson(value)
  t.deepEqual(JSON.parse(text), value)
  t.false(/[\0-\x09\x0b-\x1f\x7f-\x9f\u202e]/.test(text), JSON.stringify(text))
  t.true(text.includes('\n  "b": {\n'))
})
