// Typing into the caller's terminal from inside (CVE-2016-10124, CVE-2017-5226).

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { asEach, cli, type Place } from '../helpers/product.ts'

/** Types a line into whatever terminal it finds, by TIOCSTI and by TIOCLINUX (paste selection). */
const TYPIST = `
  my @ways;
  for my $path ("&=0", "&=1", "&=2", "/dev/tty", "/dev/console", @ARGV ? () : (glob("/dev/pts/*"), glob("/proc/[0-9]*/fd/[012]"))) {
    my $fd;
    push @ways, $fd if $path =~ /^&/ ? open($fd, "+<$path") : open($fd, "+<", $path);
  }
  my $n = 0;
  for my $fd (@ways) {
    for my $char (split //, "typed\\n") { my $byte = $char; $n++ if ioctl($fd, 0x5412, $byte) }
    my $paste = pack("C", 3);
    ioctl($fd, 0x541C, $paste);
  }
  print STDERR "typed $n characters\\n";
`

/** Runs a command on a terminal and says what was typed into that terminal by its end. */
async function typed(place: Place, command: string[]): Promise<{ caught: boolean; output: string }> {
  const script = join(place.dir, 'caller.sh')
  const quoted = command.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ')
  writeFileSync(
    script,
    `stty -echo; ${quoted}; echo "ended with $?"; if read -t 1 line; then echo "CAUGHT $line"; else echo NOTHING; fi\n`,
  )
  // The terminal's own input stays open, and silent: what arrives was typed by the command.
  const silence = join(place.dir, 'silence')
  const { stdout } = await place.exec('bash', [
    '-c',
    `rm -f ${silence}; mkfifo ${silence}; exec script -qec "bash ${script}" /dev/null <>${silence}`,
  ])
  return { caught: /CAUGHT/.test(stdout), output: stdout }
}

asEach('a command can type into the terminal of its caller if nothing stands between', async (t, place) => {
  const { caught, output } = await typed(place, ['perl', '-e', TYPIST, 'own terminal only'])
  if (!caught && /typed 0 characters/.test(output))
    t.log('this kernel has TIOCSTI switched off (dev.tty.legacy_tiocsti): the tests below prove less')
  else t.true(caught, output)
})

for (const options of [[], ['-i'], ['-t'], ['-it'], ['--init'], ['--cap-add', 'SYS_ADMIN'], ['--pid', 'host']]) {
  asEach(`nothing is typed into the caller's terminal from inside: nsrs run ${options.join(' ')}`, async (t, place) => {
    // The kernel lets CAP_SYS_ADMIN over the first user namespace type into every terminal: that is what was asked for.
    if (options.includes('SYS_ADMIN') && place.as.uid === 0) options.push('--userns', 'private')
    const { caught, output } = await typed(place, [
      process.execPath,
      cli,
      'run',
      '--network',
      'none',
      ...options,
      '--',
      'perl',
      '-e',
      TYPIST,
    ])
    t.regex(output, /typed \d+ characters/)
    t.regex(output, /ended with 0/)
    t.false(caught, output)
    t.regex(output, /NOTHING/)
  })
}
