import { Command, Option } from 'commander'
import { native } from '../ts/native/load.ts'
import { report } from './report.ts'

const FLAGS = {
  yes: ['-y, --yes', "don't ask"],
  'dry-run': ['--dry-run', 'only show the changes'],
  force: ['--force', 'write over what has changed in the real tree since the command ran, and part hard links'],
  'privileged-files': ['--privileged-files', 'bring set-user-ID files, file capabilities and devices too'],
  keep: ['--keep', 'keep the directory'],
  discard: ['--discard', 'apply nothing: only remove the kept changes'],
} as const

const EXAMPLES = `
Examples:
  nsrs run --diff --upper ./changes -- make install     what would it change?
  nsrs apply ./changes                                  show it once more, ask, do it
  nsrs apply --discard ./changes                        or throw it away
`

/** `nsrs apply`. */
export function applyCommand(): Command {
  const command = new Command('apply')
    .description(
      'Bring the changes that nsrs run --upper has kept into the real tree, after showing them. What has changed there ' +
        'meanwhile, or needs rights that the caller lacks, is left out and told.\n' +
        'Exit code: 0 all is applied, or discarded, and the directory gone; 1 not all of it; 125 nsrs failed.',
    )
    .argument('<directory>')
    .helpOption('--help', 'show this')
    .addHelpText('after', EXAMPLES)
    .addOption(new Option('--format <FORMAT>', 'of the list: text or json').choices(['text', 'json']).default('text'))
  for (const [flags, help] of Object.values(FLAGS)) command.option(flags, help)
  return command.action((directory: string, given: Record<string, unknown>) => {
    const property = (flag: string) => flag.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())
    const flags = Object.keys(FLAGS).filter((flag) => given[property(flag)] === true)
    if (given.format === 'json') flags.push('json')
    const { binding, executable } = native()
    process.exitCode = report([binding.applyInPlace(executable, directory, flags)])
  })
}
