import test from 'ava'
import { fastParse, type RunCommandLine } from '../../cli/fast-parse.ts'
import { cliFlags, flags } from '../../cli/flags.ts'
import { program } from '../../cli/program.ts'
import { hasDashes } from '../../cli/run.ts'

/** The same command line as commander reads it; undefined where it has an error or help to tell. */
function readByCommander(words: readonly string[]): RunCommandLine | undefined {
  let line: RunCommandLine | undefined
  const nsrs = program(words, async () => {})
  for (const command of nsrs.commands) {
    command.configureOutput({ writeOut: () => {}, writeErr: () => {}, outputError: () => {} })
    command.action((name: string, rest: string[], given: RunCommandLine['given']) => {
      const args = [name, ...rest]
      line = { args, given: { ...given }, dashes: hasDashes(words, args) }
    })
  }
  try {
    nsrs.parse(words, { from: 'user' })
  } catch {
    return undefined
  }
  return line
}

/** Pseudorandom numbers below `n`, the same ones in every run of the tests. */
function numbers(seed: number): (n: number) => number {
  let state = seed
  return (n) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * n)
  }
}

test('a line that is plain is read without commander', (t) => {
  t.deepEqual(fastParse(['run', '--', 'true']), { args: ['true'], given: {}, dashes: true })
  t.deepEqual(fastParse(['run', '-e', 'A=1', '--env=B', '--net', 'none', '--init', 'sh', '-c', 'exit', '--', '-i']), {
    args: ['sh', '-c', 'exit', '--', '-i'],
    given: { env: ['A=1', 'B'], network: 'none', init: true },
    dashes: false,
  })
})

test('what is not plain is left to commander', (t) => {
  for (const line of ['', 'info', '--help', 'run', 'run --', 'run --help', 'run -it sh', 'run --evn A sh', 'run --env'])
    t.is(fastParse(line.split(' ')), undefined, line)
})

test('commander reads every line the same', (t) => {
  const names = Object.values({ ...flags, ...cliFlags }).flatMap((flag) =>
    [flag.flags, ...('aliases' in flag ? (flag.aliases ?? []) : [])].flatMap(
      (text) => text.match(/(?<!\S)--?\w[\w-]*/g) ?? [],
    ),
  )
  const odd = [
    '--',
    '-',
    '',
    '-5',
    '--=',
    '-it',
    '-eA',
    '--help',
    '--version',
    'a',
    'a=b',
    'json',
    '--e',
    '-h=a',
    '-\n',
    '---',
  ]
  const random = numbers(1)
  let plain = 0
  for (let round = 0; round < 3000; round++) {
    const words = ['run']
    for (let left = random(6); left > 0; left--) {
      const name = names[random(names.length)] as string
      words.push(
        ...([[name], [name, 'json'], [`${name}=a=b`], [`${name}=`], [odd[random(odd.length)]]][random(5)] as string[]),
      )
    }
    words.push(...([['true'], ['--', 'true', '-x'], ['sh', '--', '-c'], []][random(4)] as string[]))
    const line = fastParse(words)
    if (line === undefined) continue
    plain++
    t.deepEqual(line, readByCommander(words), JSON.stringify(words))
  }
  t.true(plain > 300)
})
