import { execFileSync } from 'node:child_process'
import { mkdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { digestOf, makeImage } from './debian.mjs'
import { imageProgram } from './programs.mjs'
import { makeVolume } from './volume.mjs'

const LAYERS = 10

/** Packs a directory. */
async function pack(directory, path) {
  const args = ['-C', directory, '--numeric-owner', '--owner=0', '--group=0', '--sort=name', '-cf', path, '.']
  execFileSync('tar', args)
  return { path, diffId: await digestOf(path), size: statSync(path).size }
}

async function make(directory, root, nsrs) {
  const tars = join(directory, 'layered')
  mkdirSync(tars)
  const layers = [await pack(root, join(tars, '0.tar'))]
  for (let index = 1; index < LAYERS; index++) {
    const own = join(tars, `${index}`)
    for (const name of ['etc', `opt/${index}`]) mkdirSync(join(own, name), { recursive: true })
    for (const name of [`etc/${index}`, 'etc/last', `opt/${index}/file`]) writeFileSync(join(own, name), `${index}\n`)
    layers.push(await pack(own, join(tars, `${index}.tar`)))
  }
  // To mount takes root.
  const place = process.getuid() === 0 ? makeVolume(directory, 'store').path : directory
  const [layout, store] = [join(tars, 'layout'), join(place, 'images')]
  await makeImage(layout, layers, 'gzip')
  await nsrs(store, ['load', '--quiet', '--name', 'layered', layout])
  await nsrs(store, ['settle'])
  return { name: 'layered', store }
}

let made

/** An image of the root of these measurements and nine layers above it, unpacked: its name, and the store it is in. */
export function makeLayered({ directory, root }, options) {
  made ??= make(directory, root, imageProgram(options.package))
  return made
}
