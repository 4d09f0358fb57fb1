import test from 'ava'
import { escapeLines, escapeText, quote, toJson } from '../../cli/escape.ts'

test('unsafe characters become visible, and all others stay', (t) => {
  t.is(escapeText('\x1b[31mred\x1b[0m \x07\x7f\x9b2J'), '\\x1b[31mred\\x1b[0m \\x07\\x7f\\x9b2J')
  t.is(escapeText('a\nb\r\tc'), 'a\\nb\\r\\tc')
  t.is(escapeText('txt.\u202egnp\u2066\u2028'), 'txt.\\u202egnp\\u2066\\u2028')
  const plain = "C:\\x1b ünïcödé 日本 👩‍👩‍👧 'quoted'"
  t.is(escapeText(plain), plain)
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
