// An image as an OCI layout, made of directories.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Writes a layout of one image into a new directory; each layer is the content of a directory, the lowest first. */
export function layout(directory: string, layers: readonly string[], config: object = {}, platforms = ['amd64']): void {
  mkdirSync(join(directory, 'blobs/sha256'), { recursive: true })
  const add = (bytes: Buffer, mediaType: string) => {
    const hex = createHash('sha256').update(bytes).digest('hex')
    writeFileSync(join(directory, 'blobs/sha256', hex), bytes)
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length }
  }
  const json = (value: object, type: string) =>
    add(Buffer.from(JSON.stringify(value)), `application/vnd.oci.image.${type}.v1+json`)
  const blobs = layers.map((layer) => {
    const { stdout, status } = spawnSync('tar', ['--owner=0', '--group=0', '--sort=name', '-C', layer, '-c', '.'], {
      maxBuffer: 2 ** 28,
    })
    if (status !== 0) throw new Error(`tar failed for ${layer}`)
    return add(stdout, 'application/vnd.oci.image.layer.v1.tar')
  })
  const rootfs = { type: 'layers', diff_ids: blobs.map(({ digest }) => digest) }
  const manifests = platforms.map((architecture) => ({
    ...json(
      {
        schemaVersion: 2,
        mediaType: 'application/vnd.oci.image.manifest.v1+json',
        config: json({ architecture, os: 'linux', config, rootfs }, 'config'),
        layers: blobs,
      },
      'manifest',
    ),
    platform: { os: 'linux', architecture },
  }))
  const top =
    manifests.length === 1
      ? manifests[0]
      : json({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }, 'index')
  writeFileSync(join(directory, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  writeFileSync(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [top] }))
}
