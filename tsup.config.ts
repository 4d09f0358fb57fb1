import { resolve } from 'node:path'
import { defineConfig, type Options } from 'tsup'

/** The library is ESM and imports nothing but Node's own modules. */
const library = defineConfig({
  entry: { index: 'ts/index.ts' },
  format: 'esm',
  target: 'node20',
  platform: 'node',
  // tsup itself sets baseUrl, which is deprecated in TypeScript 6.
  dts: { compilerOptions: { ignoreDeprecations: '6.0' } },
})

/** Stand-ins for modules of Node that are slow to load and that the CLI hardly uses. */
const slim: Record<string, string> = {
  'node:child_process': 'cli/bundle/child_process.ts',
  'node:module': 'cli/bundle/module.ts',
  'node:process': 'cli/bundle/process.cjs',
}

/**
 * The first lines are a shell script, and a comment in JavaScript. The shell puts -- before the name of the file, as Node 20
 * takes an --env-file for its own option anywhere, even after the name of the program.
 *
 * It records which signals the caller ignores (proc_pid_stat(5), field 33), as nohup does for its command: Node forgets that.
 *
 * If file descriptors are to be passed on, it records those of the caller: Node opens more, and marks all of them as
 * close-on-exec. Those that have that mark here (02000000) are the shell's own, as none is inherited with it.
 */
const shebang = `#!/bin/sh
':' /*
case "$*" in *--preserve-fd*)
  NSRS_CALLER_FDS=
  for fd in /proc/$$/fd/*; do
    fd=\${fd#/proc/$$/fd/}
    [ -e /proc/$$/fdinfo/$fd ] || continue
    while read -r key value; do
      [ "$key" = flags: ] && [ $((value & 02000000)) = 0 ] && NSRS_CALLER_FDS="$NSRS_CALLER_FDS $fd"
    done </proc/$$/fdinfo/$fd
  done
  export NSRS_CALLER_FDS
esac
read -r _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ NSRS_IGNORED_SIGNALS _ </proc/$$/stat && export NSRS_IGNORED_SIGNALS
exec node -- "$0" "$@"
*/`

/** The bundle of what a plain `nsrs run` doesn't need. */
const COMMANDS = './commands.cjs'

/**
 * The CLI is two self-contained files, the second of which is read only for what isn't a plain `nsrs run`. They are CommonJS,
 * which Node loads some milliseconds faster than a module, and minified, to save parsing.
 */
const cli: Options = {
  format: 'cjs',
  target: 'node20',
  platform: 'node',
  minify: true,
  noExternal: [/.*/],
  removeNodeProtocol: false,
  esbuildOptions: (options) => {
    options.define = { ...options.define, 'import.meta.url': '__filename' }
    // require() loads CommonJS faster than the loader of modules, which import() would use.
    options.supported = { ...options.supported, 'dynamic-import': false }
  },
  esbuildPlugins: [
    {
      name: 'slim',
      setup: (build) => {
        build.onResolve({ filter: /^node:/ }, ({ path, importer }) => {
          // Our own code gets what it imports; the stand-in is for dependencies.
          const stand = path === 'node:child_process' && !importer.includes('node_modules') ? undefined : slim[path]
          return stand === undefined ? undefined : { path: resolve(stand) }
        })
        build.onResolve({ filter: /^\.\/commands\.ts$/ }, () => ({ path: COMMANDS, external: true }))
      },
    },
  ],
}

export default [
  library,
  defineConfig({ ...cli, entry: { cli: 'cli/main.ts' }, banner: { js: shebang } }),
  defineConfig({ ...cli, entry: { commands: 'cli/commands.ts' } }),
].flat()
