import { OptionTypeError } from '../errors/option-type-error.ts'
import { imageOf } from './arguments.ts'
import { nearest } from './nearest.ts'
import type { AnyEnterOptions, AnyOptions, CreateOptions } from './types.ts'

/** The type that an option must have. */
export type Kind = keyof typeof kinds

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isName = (value: unknown) => typeof value === 'string' && value !== ''
const isStrings = (value: unknown) => Array.isArray(value) && value.every((item) => typeof item === 'string')
/** Whether it can be an argument of a program. */
const isWord = (value: unknown) => typeof value === 'string' && !value.includes('\0')
const isCount = (value: unknown, max: number) =>
  Number.isInteger(value) && (value as number) >= 1 && (value as number) <= max

/** Each type with its description in errors and its test. */
const kinds = {
  string: ['a string', (value: unknown) => typeof value === 'string'],
  word: ['a string without null characters', isWord],
  words: [
    'an array of strings without null characters',
    (value: unknown) => Array.isArray(value) && value.every(isWord),
  ],
  boolean: ['a boolean', (value: unknown) => typeof value === 'boolean'],
  integer: ['an integer', (value: unknown) => Number.isSafeInteger(value)],
  jobs: ['an integer from 1 to 16', (value: unknown) => isCount(value, 16)],
  positive: ['a positive number', (value: unknown) => typeof value === 'number' && value > 0],
  milliseconds: [
    'a number of milliseconds',
    (value: unknown) => typeof value === 'number' && value >= 0 && value < 2 ** 53,
  ],
  wait: [
    'a number of milliseconds or false',
    (value: unknown) => value === false || (typeof value === 'number' && value >= 0),
  ],
  patience: ['a number of milliseconds', (value: unknown) => typeof value === 'number' && value >= 0],
  strings: ['an array of strings', isStrings],
  texts: ['an object of strings', (value: unknown) => isRecord(value) && isStrings(Object.values(value))],
  env: [
    'an object of strings',
    (value: unknown) => isRecord(value) && isStrings(Object.values(value).filter((item) => item !== undefined)),
  ],
  rootfs: ["'host', a directory, or one of { dir } and { image }, not empty", isRootfs],
  policy: [
    "'always', 'missing' or 'never'",
    (value: unknown) => ['always', 'missing', 'never'].includes(value as string),
  ],
  mounts: [
    'an array of strings and { type, source, target, options }',
    (value: unknown) => Array.isArray(value) && value.every(isMount),
  ],
  size: [
    '{ cols, rows }, each 1 to 65535',
    (value: unknown) => isRecord(value) && isCount(value.cols, 65535) && isCount(value.rows, 65535),
  ],
  stdio: ["'pipe', 'inherit', 'ignore' or a file descriptor", isStdio],
  unpiped: [
    "'inherit', 'ignore' or a file descriptor (option input writes to a pipe)",
    (value: unknown) => value !== 'pipe' && isStdio(value),
  ],
  descriptors: ['an object of file descriptors by number, 3 or more', isDescriptors],
  abort: ['an AbortSignal', (value: unknown) => typeof AbortSignal !== 'undefined' && value instanceof AbortSignal],
  line: ['a line of text', (value: unknown) => typeof value === 'string' && /^[^\n\r\0]+$/.test(value)],
  archive: ["'docker' or 'oci'", (value: unknown) => value === 'docker' || value === 'oci'],
  name: ["a signal's name or number", (value: unknown) => typeof value === 'string' || typeof value === 'number'],
  encoding: ["'utf8' or 'buffer'", (value: unknown) => value === 'utf8' || value === 'buffer'],
  input: [
    'a string, a Uint8Array or a Readable',
    (value: unknown) =>
      typeof value === 'string' || value instanceof Uint8Array || (isRecord(value) && typeof value.pipe === 'function'),
  ],
} as const satisfies Record<string, readonly [string, (value: unknown) => boolean]>

function isRootfs(value: unknown): boolean {
  if (typeof value === 'string') return true
  if (!isRecord(value)) return false
  const given = [value.dir, value.image].filter((name) => name !== undefined)
  return given.length === 1 && isName(given[0])
}

function isMount(value: unknown): boolean {
  if (typeof value === 'string') return true
  if (!isRecord(value) || typeof value.target !== 'string' || typeof value.type !== 'string') return false
  return (
    (value.source === undefined || typeof value.source === 'string') &&
    (value.options === undefined || isStrings(value.options))
  )
}

function isStdio(value: unknown): boolean {
  return value === 'pipe' || value === 'inherit' || value === 'ignore' || isDescriptor(value)
}

function isDescriptor(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 31
}

function isDescriptors(value: unknown): boolean {
  return (
    isRecord(value) &&
    Object.entries(value).every(
      ([number, fd]) => Number(number) >= 3 && isDescriptor(Number(number)) && isDescriptor(fd),
    )
  )
}

/** The types of the options that say where streams go and what becomes of the output. */
const streams = {
  stdin: 'stdio',
  stdout: 'stdio',
  stderr: 'stdio',
  fds: 'descriptors',
  signal: 'abort',
  killSignal: 'name',
  forceKillAfter: 'wait',
  input: 'input',
  reject: 'boolean',
  encoding: 'encoding',
  maxBuffer: 'positive',
  stripFinalNewline: 'boolean',
} as const

/** The type of each option of a container. A new option does not compile until it is listed here. */
const container: Record<Exclude<keyof AnyOptions, keyof typeof streams>, Kind> = {
  rootfs: 'rootfs',
  pull: 'policy',
  platform: 'string',
  entrypoint: 'strings',
  publishAll: 'boolean',
  rootfsTmpfs: 'boolean',
  readOnly: 'boolean',
  diff: 'boolean',
  upper: 'string',
  hide: 'strings',
  volumes: 'strings',
  mounts: 'mounts',
  tmpfs: 'strings',
  shmSize: 'string',
  network: 'string',
  ip: 'string',
  ip6: 'string',
  mac: 'string',
  publish: 'strings',
  dns: 'strings',
  dnsSearch: 'strings',
  dnsOptions: 'strings',
  addHosts: 'strings',
  userns: 'string',
  uidMaps: 'strings',
  gidMaps: 'strings',
  pid: 'string',
  ipc: 'string',
  uts: 'string',
  cgroupns: 'string',
  mountns: 'string',
  timens: 'string',
  monotonic: 'integer',
  boottime: 'integer',
  env: 'env',
  envHost: 'boolean',
  workdir: 'string',
  user: 'string',
  groups: 'strings',
  hostname: 'string',
  domainname: 'string',
  ulimits: 'strings',
  sysctls: 'texts',
  umask: 'string',
  oomScoreAdj: 'integer',
  capAdd: 'strings',
  capDrop: 'strings',
  allowNewPrivileges: 'boolean',
  init: 'boolean',
  tty: 'size',
  timeout: 'milliseconds',
}

const table: Record<keyof AnyOptions, Kind> = { ...container, ...streams }

/** The type of each option of a process that enters a container. */
const enterTable: Record<keyof AnyEnterOptions, Kind> = {
  env: container.env,
  workdir: container.workdir,
  user: container.user,
  groups: container.groups,
  umask: container.umask,
  tty: container.tty,
  timeout: container.timeout,
  ...streams,
}

/** The type of each option of a container that is created to be entered. */
const { tty: _, ...created } = container
const createTable: Record<keyof CreateOptions, Kind> = { ...created, signal: 'abort' }

/** Whoever collects the output is not there to write. */
const collected = { stdin: 'unpiped' } as const
const runTable: Record<keyof AnyOptions, Kind> = { ...table, ...collected }
const enterCollectedTable: Record<keyof AnyEnterOptions, Kind> = { ...enterTable, ...collected }

/** A value as errors quote it. */
function quote(value: unknown): string {
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'object' && value !== null) {
    try {
      const text = JSON.stringify(value)
      return text.length > 80 ? `${text.slice(0, 77)}...` : text
    } catch {
      return 'an object'
    }
  }
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}

/** The error for a value of the wrong type: `NAME must be EXPECTED, got VALUE`. */
export function wrongType(name: string, expected: string, value: unknown): OptionTypeError {
  return new OptionTypeError(`${name} must be ${expected}, got ${quote(value)}`)
}

/** Checks a value that is not an option of a call. */
export function checkValue(name: string, kind: Kind, value: unknown): void {
  const [expected, test] = kinds[kind]
  if (!test(value)) throw wrongType(name, expected, value)
}

/** Checks that command and arguments are strings. The command may be left out if the root is an image. */
export function checkCommand(command: unknown, args: unknown, options: unknown): void {
  const isOptional = command === undefined && isRecord(options) && imageOf(options) !== undefined
  if (!isOptional && (typeof command !== 'string' || command === ''))
    throw wrongType('command', 'a non-empty string', command)
  if (!Array.isArray(args)) throw wrongType('args', 'an array of strings', args)
  for (let index = 0; index < args.length; index++) {
    if (typeof args[index] !== 'string') throw wrongType(`args[${index}]`, 'a string', args[index])
  }
}

/** Checks that every option is known and has the right type. Reports all problems in one error. */
export function checkOptions(options: unknown): void {
  checkAgainst(table, options)
}

/** The same for a process that enters a container. */
export function checkEnterOptions(options: unknown): void {
  checkAgainst(enterTable, options)
}

/** The same for one whose output is collected. */
export function checkExecOptions(options: unknown): void {
  checkAgainst(enterCollectedTable, options)
}

/** The same for how a container is stopped. */
export function checkStopOptions(options: unknown): void {
  checkAgainst({ timeout: 'patience' }, options)
}

/** The same for a call of `run()`. */
export function checkRunOptions(options: unknown): void {
  checkAgainst(runTable, options)
}

/** The same for a container that is created to be entered. */
export function checkCreateOptions(options: unknown): void {
  checkAgainst(createTable, options)
}

/** The same for the options in `table`, which says the type of each. */
export function checkAgainst(table: Readonly<Record<string, Kind>>, options: unknown): void {
  if (!isRecord(options)) throw wrongType('options', 'an object', options)
  let problems: string[] | undefined
  // Keys, not entries: this is on the way of every start.
  for (const key of Object.keys(options)) {
    const value = options[key]
    const kind = Object.hasOwn(table, key) ? table[key] : undefined
    if (kind === undefined) {
      problems ??= []
      problems.push(`unknown option ${key}${nearest(key, Object.keys(table))}`)
    } else if (value !== undefined && !kinds[kind][1](value)) {
      problems ??= []
      problems.push(`option ${key} must be ${kinds[kind][0]}, got ${quote(value)}`)
    }
  }
  if (problems !== undefined) throw new OptionTypeError(problems.join('\n'))
}
