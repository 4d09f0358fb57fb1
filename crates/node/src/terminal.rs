//! Containers' terminals, by the descriptors that JavaScript holds.

use std::os::fd::IntoRawFd;

use napi::bindgen_prelude::*;
use napi_derive::napi;
use nsrs_base::error::{At, Error};
use nsrs_base::sys::fds::duplicate;
use nsrs_core::spec::TerminalSize;
use nsrs_core::steps::terminal;

fn to_js(error: Error) -> napi::Error {
    napi::Error::from_reason(error.to_string())
}

/// Sets the size that programs on a container's terminal see, in characters.
#[napi]
pub fn resize_terminal(fd: i32, cols: u16, rows: u16) -> Result<()> {
    let fd = duplicate(fd).at("set the terminal's size", fd).map_err(to_js)?;
    terminal::resize(&fd, TerminalSize { cols, rows }).map_err(to_js)
}

/// Another descriptor of the same terminal, the receiver's to close: where it takes two streams, each closes its own.
#[napi]
pub fn duplicate_terminal(fd: i32) -> Result<i32> {
    duplicate(fd).at("copy the terminal's descriptor", fd).map_err(to_js).map(IntoRawFd::into_raw_fd)
}
