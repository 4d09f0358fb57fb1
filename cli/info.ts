import { release } from 'node:os'
import { Command, Option } from 'commander'
import { native } from '../ts/native/load.ts'
import { version } from '../ts/native/version.ts'
import { escapeText } from './escape.ts'
import { print, printJson } from './report.ts'

/** `nsrs info`. */
export function infoCommand(): Command {
  return new Command('info')
    .description('Show the version of nsrs, the paths of its parts, and what the host supports.')
    .addOption(new Option('--format <FORMAT>', 'text or json').choices(['text', 'json']).default('text'))
    .action(async ({ format }: { format: string }) => {
      const { directory, executable } = native()
      const facts = {
        version,
        node: process.versions.node,
        platform: `${process.platform}-${process.arch}`,
        kernel: release(),
        user: process.getuid?.() ?? null,
        addon: `${directory}/nsrs.node`,
        executable,
      }
      const host = await (await import('../ts/host.ts')).checkHost()
      if (format === 'json') {
        printJson({ ...facts, host })
        return
      }
      for (const [name, value] of Object.entries(facts)) print(`${name.padEnd(10)}  ${escapeText(String(value))}\n`)
      for (const { name, verdict, detail } of host) print(`${name.padEnd(10)}  ${verdict}: ${escapeText(detail)}\n`)
    })
}
