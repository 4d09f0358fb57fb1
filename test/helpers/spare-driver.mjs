// Has a container made ahead, does something, runs a command: writes the process made ahead, the one that was used, and
// what the command wrote.

import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../dist/index.js'

const options = JSON.parse(process.argv[2])
const act = process.argv[3]

const ahead = () =>
  readdirSync('/proc').find((pid) => {
    try {
      return (
        readFileSync(`/proc/${pid}/comm`, 'utf8') === 'nsrs-spare\n' &&
        readFileSync(`/proc/${pid}/wchan`, 'utf8').includes('wait_for_more_packets') &&
        isOurs(pid)
      )
    } catch {
      return false
    }
  })

/** Is it a child of a child of this process? */
function isOurs(pid) {
  const parent = (pid) => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')[1]
  return parent(parent(pid)) === String(process.pid)
}

for (let times = 0; times < 2; times++) await run('true', options)
let pid
for (let tries = 0; tries < 500 && pid === undefined; tries++) {
  await new Promise((resolve) => setTimeout(resolve, 10))
  pid = ahead()
}
console.log(pid)
if (act === 'wait') await new Promise(() => setInterval(() => {}, 1000))
if (act === 'mount') {
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', join(options.rootfs, 'tmp')])
  execFileSync('sh', ['-c', `echo mounted > ${join(options.rootfs, 'tmp/file')}`])
}
const command =
  act === 'mount' ? 'cat /tmp/file' : 'ip addr show eth0 | grep -o "inet6* [^ ]*" | grep -v fe80 | tr "\\n" " "'
const { stdout, container } = await run('sh', ['-c', command], options)
console.log(container.pid)
console.log(stdout)
