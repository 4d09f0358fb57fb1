import { styleText } from 'node:util'
import { Command, Option } from 'commander'
import type { HostFinding } from '../ts/host.ts'
import { escapeText } from './escape.ts'
import { print, printJson } from './report.ts'

const MARKS = { ok: ['ok', 'green'], warning: ['warn', 'yellow'], failure: ['FAIL', 'red'] } as const

/** A finding whose texts name options as the command line does. */
function inWordsOfShell({ shell, ...finding }: HostFinding): HostFinding {
  return shell === undefined ? finding : { ...finding, ...shell }
}

/** `nsrs doctor`. */
export function doctorCommand(): Command {
  return new Command('doctor')
    .description("Try out what containers can do on this host.\nExits with 1 if they can't run.")
    .addOption(new Option('--format <FORMAT>', 'text or json').choices(['text', 'json']).default('text'))
    .action(async ({ format }: { format: string }) => {
      const findings = (await (await import('../ts/host.ts')).checkHost()).map(inWordsOfShell)
      if (format === 'json') {
        printJson(findings)
      } else {
        const width = Math.max(0, ...findings.map(({ name }) => name.length))
        for (const { name, verdict, detail, fix } of findings) {
          const [mark, colour] = MARKS[verdict]
          const painted = process.stdout.isTTY ? styleText(colour, mark.padEnd(4)) : mark.padEnd(4)
          print(`${painted}  ${name.padEnd(width)}  ${escapeText(detail)}\n`)
          if (fix) print(`${' '.repeat(width + 8)}fix: ${escapeText(fix)}\n`)
        }
      }
      if (findings.some(({ verdict }) => verdict === 'failure')) process.exitCode = 1
    })
}
