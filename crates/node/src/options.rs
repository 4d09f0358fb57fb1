//! What a caller can ask of a container.
//!
//! The structs give JavaScript its types. What is asked crosses as one JSON text: to look for as many properties as there
//! are options takes ten times as long.

use std::collections::BTreeMap;

use napi_derive::napi;
use nsrs_base::error::{Act, Code, Error};
use nsrs_core::spec::Form;
use nsrs_core::spec::{self, EnterSpec, Spec};
use serde::Deserialize;

use crate::caller::CallerInfo;

/// A container that is asked for.
#[napi(object, object_from_js = false, object_to_js = false)]
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerRequest {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// How the container is made.
    pub options: ContainerOptions,
    /// The calling process.
    pub caller: CallerInfo,
    /// Where standard input, output and error go: -1 a pipe, -2 /dev/null, else a file descriptor.
    pub stdio: [i32; 3],
    /// Further descriptors that the command gets.
    pub pass: Vec<i32>,
    /// Their numbers in the command.
    pub pass_as: Vec<i32>,
    /// Tell when the command runs.
    pub announce: bool,
    /// The container stays until it is ended; without a command an init is its first process. Default false.
    #[serde(default)]
    pub stays: bool,
}

impl ContainerRequest {
    /// Reads the text of a request.
    ///
    /// # Errors
    /// A string in it is no Unicode; whoever calls has checked everything else.
    pub fn parse(text: &str) -> Result<ContainerRequest, Error> {
        serde_json::from_str(text).map_err(|error| not_unicode(&error))
    }

    /// The same wish as the core's plain data.
    pub fn into_spec(self) -> Spec {
        Spec { stays: self.stays, ..self.options.into_spec(self.args, self.caller.into(), self.pass_as) }
    }
}

fn not_unicode(error: &serde_json::Error) -> Error {
    let why = format!("a string is not well-formed Unicode ({error})");
    Error::new(Code::InvalidArgument, "read the call", why)
        .during(Act::Request)
        .hint("String.prototype.toWellFormed() mends it")
}

/// A process that is to enter a container.
#[napi(object, object_from_js = false, object_to_js = false)]
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnterRequest {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// How it is started.
    pub options: EnterOptions,
    /// Where standard input, output and error go: as in [`ContainerRequest`].
    pub stdio: [i32; 3],
    /// Further descriptors that the command gets.
    pub pass: Vec<i32>,
    /// Their numbers in the command.
    pub pass_as: Vec<i32>,
    /// Tell when the command runs.
    pub announce: bool,
}

impl EnterRequest {
    /// Reads the text of a request.
    ///
    /// # Errors
    /// A string in it is no Unicode; whoever calls has checked everything else.
    pub fn parse(text: &str) -> Result<EnterRequest, Error> {
        serde_json::from_str(text).map_err(|error| not_unicode(&error))
    }

    /// The same request as the core's plain data.
    pub fn into_spec(self) -> EnterSpec {
        let EnterOptions { env, workdir, user, groups, umask, tty, timeout } = self.options;
        EnterSpec {
            args: self.args,
            env: env.unwrap_or_default().into_iter().collect(),
            workdir,
            user,
            groups: groups.unwrap_or_default(),
            umask,
            tty: tty.map(|TerminalSize { cols, rows }| spec::TerminalSize { cols, rows }),
            timeout_ms: timeout.map(|timeout| u64::try_from(timeout).unwrap_or(0)),
            preserve_fds: self.pass_as,
        }
    }
}

/// How a process that enters a container is started. What is left out is as the container's own command has it; what it may
/// do is what that one may.
#[napi(object, object_from_js = false, object_to_js = false)]
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EnterOptions {
    /// Variables beside those of the container. One with the value `undefined` is taken away.
    #[napi(ts_type = "Record<string, string | undefined>")]
    pub env: Option<BTreeMap<String, Option<String>>>,
    /// Working directory in the container.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`, names of the container or numbers.
    pub user: Option<String>,
    /// Supplementary groups.
    pub groups: Option<Vec<String>>,
    /// File mode creation mask, octal.
    pub umask: Option<String>,
    /// Give the command a terminal of its own, of this size.
    pub tty: Option<TerminalSize>,
    /// Kill the process after this many milliseconds. Default: never.
    pub timeout: Option<i64>,
}

/// Size of a terminal in characters.
#[napi(object)]
#[derive(Clone, Debug, Deserialize)]
pub struct TerminalSize {
    /// Columns, 1 to 65535.
    pub cols: u16,
    /// Rows, 1 to 65535.
    pub rows: u16,
}

/// A mount taken apart, for paths that hold colons or commas.
#[napi(object, object_from_js = false, object_to_js = false)]
#[derive(Clone, Debug, Deserialize)]
pub struct MountOptions {
    /// `bind`, `tmpfs` or `overlay`.
    #[napi(js_name = "type", ts_type = "'bind' | 'tmpfs' | 'overlay'")]
    #[serde(rename = "type")]
    pub kind: String,
    /// Path on the host (`bind`), lower directory (`overlay`); none for `tmpfs`. Relative to the caller's directory.
    pub source: Option<String>,
    /// Absolute path in the container.
    pub target: String,
    /// `ro`, `nosuid`, `nodev`, `noexec`, `rslave`, `size=64m`, `mode=1777`, …
    pub options: Option<Vec<String>>,
}

/// An image as the root file system.
#[napi(object, object_from_js = false, object_to_js = false)]
#[derive(Clone, Debug, Deserialize)]
pub struct ImageRoot {
    /// Its name, completed by docker's rules (`busybox`, `registry.example/app:1`), or the beginning of its id.
    pub image: String,
}

/// A text, or something taken apart.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum TextOr<T> {
    /// As one text.
    Text(String),
    /// Taken apart.
    Apart(T),
}

/// How a container is made. Names and text forms are docker's and podman's where those have the option.
#[napi(object, object_from_js = false, object_to_js = false)]
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerOptions {
    /// The root file system: `host`, the host's own tree copy-on-write, a directory, or an image. Default `host`.
    #[napi(ts_type = "string | ImageRoot")]
    pub rootfs: Option<TextOr<ImageRoot>>,
    /// Which of an image's platforms, `os/arch[/variant]`. Default: this machine's.
    pub platform: Option<String>,
    /// In place of the image's entrypoint; its `Cmd` is then dropped too. An empty list is no entrypoint.
    pub entrypoint: Option<Vec<String>>,
    /// Keep what the command writes to an image's tree in memory, not on disk. Default false.
    pub rootfs_tmpfs: Option<bool>,
    /// Mount the root file system read-only. Default false.
    pub read_only: Option<bool>,
    /// List what the command changed of its root file system, in `changes` of the result. A directory as the root is
    /// copy-on-write then. Default false.
    pub diff: Option<bool>,
    /// Directory that keeps what the command changes of its root file system, to be shown and applied by `nsrs apply`, or gone
    /// on with; made if it is missing. A directory as the root is copy-on-write then. Default: the changes are thrown away.
    pub upper: Option<String>,
    /// Further paths of the host's tree to hide (`~/` is the home directory), beside the well-known secret places.
    pub hide: Option<Vec<String>>,
    /// Bind mounts, `SOURCE:TARGET[:OPTIONS]`.
    pub volumes: Option<Vec<String>>,
    /// Mounts as `type=bind,source=…,target=…[,readonly]`, or taken apart.
    #[napi(ts_type = "Array<string | MountOptions>")]
    pub mounts: Option<Vec<TextOr<MountOptions>>>,
    /// Temporary file systems, `TARGET[:OPTIONS]`.
    pub tmpfs: Option<Vec<String>>,
    /// Size of /dev/shm, such as `64m`. Default `64m`.
    pub shm_size: Option<String>,

    /// The network: `none`, `host`, `bridge`, `pasta`, or `ns:NAME|PATH|PID`. Default `bridge` for root, else `pasta` if
    /// it is installed, else `none`.
    pub network: Option<String>,
    /// IPv4 address on the bridge.
    pub ip: Option<String>,
    /// IPv6 address on the bridge.
    pub ip6: Option<String>,
    /// Hardware address.
    pub mac: Option<String>,
    /// Published ports, `[IP:][HOST:]CONTAINER[/udp]`.
    pub publish: Option<Vec<String>>,
    /// Publish every port of tcp and udp that the image exposes, each on a free port of the host. Default false.
    pub publish_all: Option<bool>,
    /// Name servers.
    pub dns: Option<Vec<String>>,
    /// Search domains of the resolver.
    pub dns_search: Option<Vec<String>>,
    /// Options of the resolver.
    pub dns_options: Option<Vec<String>>,
    /// Lines for /etc/hosts, `NAME:IP`; the address `host-gateway` is the host.
    pub add_hosts: Option<Vec<String>>,

    /// User namespace: `private`, `host`, a path, or `ns:PID`. Default `host` for root, `private` for everybody else.
    pub userns: Option<String>,
    /// User ids, `INSIDE:OUTSIDE:COUNT`.
    pub uid_maps: Option<Vec<String>>,
    /// Group ids, `INSIDE:OUTSIDE:COUNT`. Default: as the user ids.
    pub gid_maps: Option<Vec<String>>,
    /// PID namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    pub pid: Option<String>,
    /// IPC namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    pub ipc: Option<String>,
    /// UTS namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    pub uts: Option<String>,
    /// Cgroup namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    pub cgroupns: Option<String>,
    /// Mount namespace: `private`, `host`, a path, or `ns:PID`. Default `private`.
    pub mountns: Option<String>,
    /// Time namespace: `private`, `host`, a path, or `ns:PID`. Default `host`, or `private` with an offset.
    pub timens: Option<String>,
    /// Offset of the monotonic clock in seconds.
    pub monotonic: Option<i64>,
    /// Offset of the boot-time clock in seconds.
    pub boottime: Option<i64>,

    /// Variables of the command. A name with the value `undefined` takes the caller's.
    #[napi(ts_type = "Record<string, string | undefined>")]
    pub env: Option<BTreeMap<String, Option<String>>>,
    /// Give the command every variable of the caller. Default false: on the host's tree only what programs need to run
    /// (`PATH`, `HOME`, `LANG`, …), elsewhere docker's minimum.
    pub env_host: Option<bool>,
    /// Working directory in the container. Default: the caller's on the host's tree, else `/`.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`, names of the container or numbers. Default: the caller on the host's tree, else root. `HOME`, and on
    /// the host's tree `USER` and `LOGNAME`, are this user's.
    pub user: Option<String>,
    /// Supplementary groups.
    pub groups: Option<Vec<String>>,
    /// Host name.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Resource limits, `NAME=SOFT[:HARD]`.
    pub ulimits: Option<Vec<String>>,
    /// Kernel parameters of the container's own namespaces.
    pub sysctls: Option<BTreeMap<String, String>>,
    /// File mode creation mask, octal. Default: the caller's on the host's tree, else `0022`.
    pub umask: Option<String>,
    /// Out-of-memory score, -1000 to 1000.
    pub oom_score_adj: Option<i64>,
    /// Capabilities beyond podman's default set, with or without `CAP_`, or `ALL`.
    pub cap_add: Option<Vec<String>>,
    /// Capabilities to take away, or `ALL`.
    pub cap_drop: Option<Vec<String>>,
    /// Let set-user-ID programs and file capabilities give more rights. Default false (`no_new_privs` is on).
    pub allow_new_privileges: Option<bool>,
    /// Run a small init as PID 1, which reaps orphans and forwards signals. Default false: the command is PID 1.
    pub init: Option<bool>,
    /// Give the command a terminal of its own, of this size.
    pub tty: Option<TerminalSize>,
    /// Kill the container after this many milliseconds. Default: never.
    pub timeout: Option<i64>,
}

impl ContainerOptions {
    /// Destructured without a rest: a new option does not compile until it is mapped here.
    fn into_spec(self, args: Vec<String>, caller: spec::Caller, preserve_fds: Vec<i32>) -> Spec {
        let ContainerOptions {
            rootfs,
            platform,
            entrypoint,
            rootfs_tmpfs,
            read_only,
            diff,
            upper,
            hide,
            volumes,
            mounts,
            tmpfs,
            shm_size,
            network,
            ip,
            ip6,
            mac,
            publish,
            publish_all,
            dns,
            dns_search,
            dns_options,
            add_hosts,
            userns,
            uid_maps,
            gid_maps,
            pid,
            ipc,
            uts,
            cgroupns,
            mountns,
            timens,
            monotonic,
            boottime,
            env,
            env_host,
            workdir,
            user,
            groups,
            hostname,
            domainname,
            ulimits,
            sysctls,
            umask,
            oom_score_adj,
            cap_add,
            cap_drop,
            allow_new_privileges,
            init,
            tty,
            timeout,
        } = self;
        let (rootfs, image) = match rootfs {
            Some(TextOr::Text(directory)) => (Some(directory), None),
            Some(TextOr::Apart(ImageRoot { image })) => (None, Some(image)),
            None => (None, None),
        };
        Spec {
            args,
            caller,
            rootfs,
            image,
            platform,
            entrypoint,
            publish_all: publish_all.unwrap_or_default(),
            rootfs_tmpfs: rootfs_tmpfs.unwrap_or_default(),
            read_only: read_only.unwrap_or_default(),
            diff: diff.unwrap_or_default().then_some(Form::Json),
            upper,
            hide: hide.unwrap_or_default(),
            volumes: volumes.unwrap_or_default(),
            mounts: mounts.unwrap_or_default().into_iter().map(mount).collect(),
            tmpfs: tmpfs.unwrap_or_default(),
            shm_size,
            namespaces: spec::Namespaces {
                mount: mountns,
                pid,
                uts,
                ipc,
                user: userns,
                cgroup: cgroupns,
                time: timens,
            },
            uid_maps: uid_maps.unwrap_or_default(),
            gid_maps: gid_maps.unwrap_or_default(),
            monotonic_offset: monotonic,
            boottime_offset: boottime,
            network,
            ip,
            ip6,
            mac,
            dns: dns.unwrap_or_default(),
            dns_search: dns_search.unwrap_or_default(),
            dns_options: dns_options.unwrap_or_default(),
            add_hosts: add_hosts.unwrap_or_default(),
            publish: publish.unwrap_or_default(),
            env: env.unwrap_or_default().into_iter().collect(),
            env_host: env_host.unwrap_or_default(),
            workdir,
            user,
            groups: groups.unwrap_or_default(),
            hostname,
            domainname,
            ulimits: ulimits.unwrap_or_default(),
            sysctls: sysctls.unwrap_or_default(),
            umask,
            // Beyond what it holds is beyond what is allowed, too.
            oom_score_adj: oom_score_adj
                .map(|score| i32::try_from(score).unwrap_or(if score < 0 { i32::MIN } else { i32::MAX })),
            cap_add: cap_add.unwrap_or_default(),
            cap_drop: cap_drop.unwrap_or_default(),
            allow_new_privileges: allow_new_privileges.unwrap_or_default(),
            init: init.unwrap_or_default(),
            tty: tty.map(|TerminalSize { cols, rows }| spec::TerminalSize { cols, rows }),
            timeout_ms: timeout.map(|timeout| u64::try_from(timeout).unwrap_or(0)),
            preserve_fds,
            stays: false,
        }
    }
}

fn mount(mount: TextOr<MountOptions>) -> spec::Mount {
    match mount {
        TextOr::Text(text) => spec::Mount::Text(text),
        TextOr::Apart(MountOptions { kind, source, target, options }) => spec::Mount::Typed {
            kind,
            source: source.unwrap_or_default(),
            target,
            options: options.unwrap_or_default(),
        },
    }
}
