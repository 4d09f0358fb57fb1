import type { ContainerOptions } from './types.ts'

const NO_ARGS: readonly string[] = Object.freeze([])
const NO_OPTIONS = Object.freeze({})

/** The name of the image that is the root, if the root is an image. */
export function imageOf({ rootfs }: Pick<ContainerOptions, 'rootfs'>): string | undefined {
  return typeof rootfs === 'object' && rootfs !== null && 'image' in rootfs ? rootfs.image : undefined
}

/** Command and arguments as one list; empty if the command is left to the image. */
export function commandWords(command: string | undefined, args: readonly string[]): string[] {
  return command === undefined ? [] : [command, ...args]
}

/** Sorts the arguments of a call into command, arguments and options, each of which may be left out. */
export function splitArguments<Options extends ContainerOptions>(
  first: string | Options,
  second: readonly string[] | Options | undefined,
  third: Options | undefined,
): [string | undefined, readonly string[], Options] {
  if (typeof first === 'object' && first !== null && second === undefined && imageOf(first) !== undefined)
    return [undefined, NO_ARGS, first]
  // Its type is checked later.
  const command = first as string
  if (third === undefined && second !== undefined && !Array.isArray(second))
    return [command, NO_ARGS, second as Options]
  return [command, (second as readonly string[] | undefined) ?? NO_ARGS, third ?? (NO_OPTIONS as Options)]
}
