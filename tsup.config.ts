import { resolve } from 'node:path'
import { defineConfig, type Options } from 'tsup'

/** The library is ESM and imports nothing but Node's own modules. */
const library = defineConfig({
  entry: { index: 'ts/index.ts' },
  format: 'esm',
  target: 'node20',
  platform: 'node',
  // tsup sets baseUrl itself, which TypeScript 6 tells is deprecated.
  dts: { compilerOptions: { ignoreDeprecations: '6.0' } },
})

/** Modules of Node that take long to load and of which the CLI needs next to nothing. */
const slim: Record<string, string> = {
  'node:child_process': 'cli/bundle/child_process.ts',
  'node:module': 'cli/bundle/module.ts',
  'node:process': 'cli/bundle/process.cjs',
}

/**
 * A shell script and JavaScript at once. The shell puts the double hyphen before the file's name: Node 20 takes an
 * --env-file wherever it stands for its own, even after the name of the program.
 *
 * It takes down which signals the caller has us ignore (proc_pid_stat(5), field 33), which Node forgets: nohup and scripts
 * do that, for the command.
 *
 * And where descriptors are to be handed on, it takes down which the caller has: Node opens more, and marks all of them as
 * closed on exec. Those with that mark (02000000) are the shell's own, for none is inherited with it.
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

/** The bundle of the CLI that holds what a plain `nsrs run` does without. */
const COMMANDS = './commands.cjs'

/**
 * The CLI is two files with everything inside: the second is read only for what isn't a plain `nsrs run`. CommonJS,
 * because Node loads it some milliseconds sooner than a module, and minified, because parsing counts too.
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
    // Of CommonJS from CommonJS a require() makes less than the loader for modules.
    options.supported = { ...options.supported, 'dynamic-import': false }
  },
  esbuildPlugins: [
    {
      name: 'slim',
      setup: (build) => {
        build.onResolve({ filter: /^node:/ }, ({ path, importer }) => {
          // Our own code means what it imports.
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
