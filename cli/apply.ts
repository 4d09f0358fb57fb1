import { Command, Option } from 'commander'
import { native } from '../ts/native/load.ts'
import { report } from './report.ts'

/** Flags of `nsrs apply`, by the name that nsrs-runtime has for them. */
export const applyFlags = {
  yes: ['-y, --yes', "don't ask"],
  'dry-run': ['--dry-run', 'only show the changes'],
  force: ['--force', 'overwrite what has changed in the real tree since the command ran, and break hard links'],
  'privileged-files': ['--privileged-files', 'also apply set-user-ID files, file capabilities and devices'],
  keep: ['--keep', 'keep the directory'],
  discard: ['--discard', 'remove the kept changes without applying them'],
} as const

const EXAMPLES = `
Examples:
  nsrs run --diff --upper ./changes -- make install     what would it change?
  nsrs apply ./changes                                  show the changes again, ask, apply them
  nsrs apply --discard ./changes                        or throw them away
`

/** `nsrs apply`. */
export function applyCommand(): Command {
  const command = new Command('apply')
    .description(
      'Apply the changes kept by nsrs run --upper to the real tree, after showing them. Skips and reports what has ' +
        'changed there since, or needs rights that the caller lacks.\n' +
        'Exit codes: 0 everything was applied or discarded, and the directory removed; 1 something was skipped; 125 nsrs failed.',
    )
    .argument('<directory>')
    .helpOption('--help', 'show this help')
    .addHelpText('after', EXAMPLES)
    .addOption(
      new Option('--format <FORMAT>', 'format of the list: text or json').choices(['text', 'json']).default('text'),
    )
  for (const [flags, help] of Object.values(applyFlags)) command.option(flags, help)
  return command.action((directory: string, given: Record<string, unknown>) => {
    const property = (flag: string) => flag.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
    const flags = Object.keys(applyFlags).filter((flag) => given[property(flag)] === true)
    if (given.format === 'json') flags.push('json')
    const { binding, executable } = native()
    process.exitCode = report([binding.applyInPlace(executable, directory, flags)])
  })
}
