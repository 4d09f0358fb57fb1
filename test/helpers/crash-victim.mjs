// A Node process that starts containers without end, to be killed. Arguments: network, port, a root.

import { run } from '../../dist/index.js'

const [network, port, rootfs] = [process.argv[2], Number(process.argv[3]), process.argv[4]]
/** Takes off the signal that the kernel would send at the supervisor's death: prctl(PR_SET_PDEATHSIG, 0). */
const prctl = { x64: 157, arm64: 167 }[process.arch]
const stubborn = ['-e', `syscall(${prctl}, 1, 0); $SIG{TERM} = 'IGNORE'; sleep 100`]

process.stdout.write('ready\n')
const shared = { network, stdout: 'ignore', stderr: 'ignore', init: false }
const ports = network === 'bridge' || network === 'pasta' ? { publish: [`${port}:80`] } : {}
const forever = [
  run('perl', stubborn, { ...shared, ...ports }),
  run('perl', stubborn, { ...shared, pid: 'host' }),
  run('sh', ['-c', 'sleep 100 & sleep 100'], { ...shared, init: true }),
  ...[{}, { rootfs }].map(async (more) => {
    // On a root of their own they are prewarmed.
    for (;;) await run('true', { ...shared, ...more })
  }),
]
try {
  await Promise.all(forever)
} catch (error) {
  // The supervisor was killed.
  process.exit(error.code?.startsWith('ERR_NSRS') ? 3 : 4)
}
