import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import {
  descriptors,
  envFile,
  integer,
  milliseconds,
  pair,
  securityOption,
  sysctl,
  ValueError,
  variable,
} from '../../cli/flag-values.ts'
import { flags } from '../../cli/flags.ts'
import { nearest } from '../../ts/options/nearest.ts'
import { temporary } from '../helpers/host.ts'

test('times', (t) => {
  const texts = { '1': 1000, '1.5': 1500, '.5s': 500, '500ms': 500, '2m': 120_000, '1h': 3_600_000, '0.0001': 1 }
  for (const [text, time] of Object.entries(texts)) t.is(milliseconds(text), time, text)
  for (const text of ['', '0', '-1', '1d', '1 s', '1e3', 'ms', '9'.repeat(30)])
    t.throws(() => milliseconds(text), { instanceOf: ValueError }, text)
})

test('integers', (t) => {
  t.deepEqual(['0', '-1000', '+7'].map(integer), [0, -1000, 7])
  for (const text of ['', '1.5', '0x10', ' 1', '1e3', '9'.repeat(20)])
    t.throws(() => integer(text), { instanceOf: ValueError }, text)
})

test('file descriptors', (t) => {
  t.deepEqual(descriptors('3,5-7'), [3, 5, 6, 7])
  for (const text of ['', '2', '3,', '7-5', 'a', '3-9999'])
    t.throws(() => descriptors(text), { instanceOf: ValueError }, text)
})

test('names and values', (t) => {
  t.deepEqual(pair('A=b=c'), ['A', 'b=c'])
  t.deepEqual(variable('A'), ['A', undefined])
  t.deepEqual(sysctl('net.x=1'), ['net.x', '1'])
  for (const call of [() => variable('=x'), () => sysctl('net.x'), () => sysctl('=1')])
    t.throws(call, { instanceOf: ValueError })
})

test('security options', (t) => {
  t.true(securityOption('no-new-privileges:false'))
  t.false(securityOption('no-new-privileges'))
  t.false(securityOption('no-new-privileges=true'))
  t.throws(() => securityOption('seccomp=unconfined'), { instanceOf: ValueError })
})

test('a file of variables, as docker reads it', (t) => {
  const path = join(temporary(), 'env')
  writeFileSync(path, '\ufeff# c\n\n A=1\r\nB="quoted" # kept\nC=\nD\n')
  t.deepEqual(envFile(path), [
    ['A', '1'],
    ['B', '"quoted" # kept'],
    ['C', ''],
    ['D', undefined],
  ])
  writeFileSync(path, 'A=1\nmy name=x\n')
  t.throws(() => envFile(path), { instanceOf: ValueError, message: 'line 2: "my name" is not a valid variable name' })
})

test('every option has one flag, and no two share a name', (t) => {
  const names = Object.values(flags).flatMap(({ flags, aliases = [] }) =>
    [flags, ...aliases].flatMap((text) => text.match(/(?<=^|\s)--?[\w-]+/g) ?? []),
  )
  t.is(new Set(names).size, names.length)
})

test('what was meant', (t) => {
  t.is(nearest('netwrok', ['network', 'hostname']), '; did you mean network?')
  t.is(nearest('Workdir', ['workdir']), '; did you mean workdir?')
  t.is(nearest('xyz', ['network', 'hostname']), '')
})
