import { spawn } from 'node:child_process'

const PROGRAM = `
import json, os, pty, select, signal, sys, termios, fcntl, struct, time
args, script = json.loads(sys.argv[1])
pid, fd = pty.fork()
if pid == 0:
    # A shell's background jobs ignore them, and so would all that is started here.
    for number in (signal.SIGINT, signal.SIGQUIT): signal.signal(number, signal.SIG_DFL)
    os.execvp(args[0], args)
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('HHHH', 33, 99, 0, 0))
before = termios.tcgetattr(fd)
text = b''; seen = 0; end = time.time() + 60
while time.time() < end:
    if script and script[0][0].encode() in text[seen:]:
        seen = len(text)
        os.write(fd, script.pop(0)[1].encode())
    ready, _, _ = select.select([fd], [], [], 0.1)
    if ready:
        try:
            chunk = os.read(fd, 4096)
        except OSError:
            break
        if not chunk: break
        text += chunk
else:
    os.kill(pid, 9)
_, status = os.waitpid(pid, 0)
print(json.dumps({'text': text.decode(), 'status': os.waitstatus_to_exitcode(status), 'left': script}))
`

/**
 * Runs a command line on a real terminal; `script` is a list of texts to wait for, each with what is typed then. A text is
 * looked for behind what was there when the one before was found.
 */
export async function onTerminal(
  args: readonly string[],
  script: readonly (readonly [string, string])[],
  env: NodeJS.ProcessEnv = process.env,
) {
  const child = spawn('python3', ['-c', PROGRAM, JSON.stringify([args, script])], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env,
  })
  let text = ''
  for await (const chunk of child.stdout) text += chunk
  return JSON.parse(text) as { text: string; status: number; left: unknown[] }
}
