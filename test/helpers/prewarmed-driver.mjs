// Has a container prewarmed, does something, runs a command: writes the prewarmed process, the one that was used, and
// what the command wrote.

import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { run } from '../../dist/index.js'

const options = JSON.parse(process.argv[2])
const act = process.argv[3]

const prewarmed = () =>
  readdirSync('/proc').find((pid) => {
    try {
      return (
        readFileSync(`/proc/${pid}/comm`, 'utf8') === 'nsrs-prewarmed\n' &&
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

/** What is done before there is one, before the request, and what is requested. */
const acts = {
  wait: [[], [], ''],
  plain: [[], [], 'ip addr show eth0 | grep -o "inet6* [^ ]*" | grep -v fe80 | tr "\\n" " "'],
  mount: [[], ['mount -t tmpfs tmpfs "$1/tmp"', 'echo mounted > "$1/tmp/file"'], 'cat /tmp/file'],
  mountElsewhere: [[], ['mount -t tmpfs tmpfs /mnt', 'umount /mnt'], 'echo here'],
  remount: [['mount --bind "$1" "$1"'], ['mount -o remount,bind,ro "$1"'], 'echo > /file || echo refused'],
}
const [first, before, command] = acts[act]
const shell = (lines) => execFileSync('sh', ['-ec', lines.join('\n'), 'sh', options.rootfs])

shell(first)
for (let times = 0; times < 2; times++) await run('true', options)
let pid
for (let tries = 0; tries < 500 && pid === undefined; tries++) {
  await new Promise((resolve) => setTimeout(resolve, 10))
  pid = prewarmed()
}
console.log(pid)
if (act === 'wait') await new Promise(() => setInterval(() => {}, 1000))
shell(before)
const { stdout, container } = await run('sh', ['-c', command], options)
console.log(container.pid)
console.log(stdout)
