// Errors carry the act that failed, which stays what it is while their words change.

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'ava'
import { NsrsError, type RunOptions, run } from '../../ts/index.ts'
import { temporary } from '../helpers/host.ts'

interface Failure {
  options: RunOptions
  id: string
  option?: string
  command?: string
}

const dir = temporary()
mkdirSync(join(dir, 'file-in-the-way'), { recursive: true })
writeFileSync(join(dir, 'file'), '')

const failures: Record<string, Failure> = {
  'a value that is none': { options: { hostname: 'a b' }, id: 'resolve', option: 'hostname' },
  'options that contradict each other': { options: { network: 'none', ip: '10.0.0.2' }, id: 'resolve', option: 'ip' },
  'an image that is missing': { options: { rootfs: { image: 'nsrs.invalid/none:x' }, pull: 'never' }, id: 'image' },
  'a namespace that is none': { options: { ipc: join(dir, 'file') }, id: 'namespaces' },
  'a mount on a file of the kernel': { options: { volumes: [`${dir}:/sys/nsrs-x`] }, id: 'mounts', option: 'volumes' },
  'changes kept among other things': { options: { upper: dir }, id: 'changes' },
  'a user that nobody knows': { options: { user: 'nobody-at-all' }, id: 'user', option: 'user' },
  'a directory that is missing': { options: { workdir: '/nowhere' }, id: 'workdir' },
  'a command that is missing': { options: {}, id: 'exec', command: 'nsrs-no-such-command' },
  'a descriptor that is not open': { options: { fds: { 3: 1000 } }, id: 'descriptors', option: 'fds' },
}

for (const [name, { options, id, option, command = 'true' }] of Object.entries(failures)) {
  test(`an error of ${name} names its act`, async (t) => {
    const error = await t.throwsAsync(run(command, { network: 'none', ...options }), { instanceOf: NsrsError })
    t.is(error.id, id, error.message)
    if (option !== undefined) t.is(error.option, option)
    t.notRegex(`${error.message}\n${error.hint ?? ''}`, /--|nsrs [a-z]/)
  })
}

test('reason and option are fields of the error', async (t) => {
  const error = await t.throwsAsync(run('true', { user: 'a b' }), { instanceOf: NsrsError })
  t.like(error, {
    option: 'user',
    reason: 'that is neither a number nor a name',
    message: 'invalid user "a b": that is neither a number nor a name',
  })
})
