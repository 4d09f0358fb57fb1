import type { ContainerOptions } from './types.ts'

const NO_ARGS: readonly string[] = Object.freeze([])
const NO_OPTIONS = Object.freeze({})

/** The image that these options name, if they name one. */
export function imageOf({ rootfs }: Pick<ContainerOptions, 'rootfs'>): string | undefined {
  return typeof rootfs === 'object' && rootfs !== null && 'image' in rootfs ? rootfs.image : undefined
}

/** Command and arguments as one list; without a command of the caller's it is empty. */
export function commandWords(command: string | undefined, args: readonly string[]): string[] {
  return command === undefined ? [] : [command, ...args]
}

/** Command, arguments and options of a call that may leave out each of them; the command only with an image. */
export function splitArguments<Options extends ContainerOptions>(
  first: string | Options,
  second: readonly string[] | Options | undefined,
  third: Options | undefined,
): [string | undefined, readonly string[], Options] {
  if (typeof first === 'object' && first !== null && second === undefined && imageOf(first) !== undefined)
    return [undefined, NO_ARGS, first]
  // What it isn't, is told when it is checked.
  const command = first as string
  if (third === undefined && second !== undefined && !Array.isArray(second))
    return [command, NO_ARGS, second as Options]
  return [command, (second as readonly string[] | undefined) ?? NO_ARGS, third ?? (NO_OPTIONS as Options)]
}
