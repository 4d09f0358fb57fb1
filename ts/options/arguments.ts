import type { ContainerOptions } from './types.ts'

const NO_ARGS: readonly string[] = Object.freeze([])
const NO_OPTIONS: ContainerOptions = Object.freeze(Object.create(null))

/** The name of the image that is the root, if the root is an image. */
export function imageOf({ rootfs }: Pick<ContainerOptions, 'rootfs'>): string | undefined {
  return typeof rootfs === 'object' && rootfs !== null && 'image' in rootfs ? rootfs.image : undefined
}

/** Command and arguments as one list; empty if the command is left to the image. */
export function commandWords(command: string | undefined, args: readonly string[]): string[] {
  return command === undefined ? [] : [command, ...args]
}

/**
 * The options without what they inherit: something that was put into `Object.prototype` is not the caller's. What is not an
 * object is left to the check of types.
 */
export function ownOptions<Options>(options: Options): Options {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) return options
  return { __proto__: null, ...options }
}

/** Sorts the arguments of a call into command, arguments and options, each of which may be left out. */
export function splitArguments<Options extends ContainerOptions>(
  first: string | Options,
  second: readonly string[] | Options | undefined,
  third: Options | undefined,
): [string | undefined, readonly string[], Options] {
  if (typeof first === 'object' && first !== null && second === undefined && imageOf(first) !== undefined)
    return [undefined, NO_ARGS, ownOptions(first)]
  // Its type is checked later.
  const command = first as string
  if (third === undefined && second !== undefined && !Array.isArray(second))
    return [command, NO_ARGS, ownOptions(second as Options)]
  return [command, (second as readonly string[] | undefined) ?? NO_ARGS, ownOptions(third) ?? (NO_OPTIONS as Options)]
}
