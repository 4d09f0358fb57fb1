/** Linux containers without a daemon. */
export type { ContainerReport, ErrorRecord, ResourceUsage } from './binding.d.ts'
export { Container } from './container.ts'
export { NsrsError } from './errors/nsrs-error.ts'
export { ExitError } from './exit-error.ts'
export { explain } from './explain.ts'
export { checkHost, type HostFinding, isSupported } from './host.ts'
export { ImageTask } from './images/image-task.ts'
export * as images from './images/index.ts'
export type * from './images/options.ts'
export type * from './images/progress.ts'
export type * from './images/results.ts'
export type { Explanation } from './internal/plan.ts'
export { Terminal } from './io/terminal.ts'
export type {
  CollectOptions,
  ContainerOptions,
  CreateOptions,
  EnterOptions,
  EnterSpawnOptions,
  ExecOptions,
  OfImage,
  ProcessOptions,
  RunOptions,
  SpawnOptions,
  Stdio,
  StreamOptions,
} from './options/types.ts'
export { Process, type ProcessEvents } from './process.ts'
export type { Change, Exit, Result } from './result.ts'
export { run } from './run.ts'
export { spawn } from './spawn.ts'
export type { MountOptions, TerminalSize } from './spec.d.ts'
