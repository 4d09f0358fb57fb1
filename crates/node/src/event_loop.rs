//! A descriptor in Node's own event loop, as a `uv_poll_t` of libuv: what arrives wakes the JavaScript thread itself, not
//! first a thread that passes it on.
//!
//! libuv's functions are looked up by name, for only Node has them: Deno offers Node-API alone.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::sync::LazyLock;

use napi::{Env, sys};
use nix::libc::{RTLD_DEFAULT, dlsym};

type Loop = *mut sys::uv_loop_s;
type Handle = *mut c_void;

/// `UV_POLL` of `uv_handle_type`.
const POLL: c_int = 8;
/// `UV_READABLE` of `uv_poll_event`.
const READABLE: c_int = 1;

/// What is used of uv.h and node_api.h.
struct Uv {
    event_loop: unsafe extern "C" fn(sys::napi_env, *mut Loop) -> sys::napi_status,
    handle_size: unsafe extern "C" fn(c_int) -> usize,
    set_data: unsafe extern "C" fn(Handle, *mut c_void),
    data: unsafe extern "C" fn(Handle) -> *mut c_void,
    poll_init: unsafe extern "C" fn(Loop, Handle, c_int) -> c_int,
    poll_start: unsafe extern "C" fn(Handle, c_int, unsafe extern "C" fn(Handle, c_int, c_int)) -> c_int,
    unref: unsafe extern "C" fn(Handle),
    close: unsafe extern "C" fn(Handle, unsafe extern "C" fn(Handle)),
}

static UV: LazyLock<Option<Uv>> = LazyLock::new(Uv::find);

impl Uv {
    #[expect(clippy::missing_transmute_annotations, reason = "the fields have the types")]
    fn find() -> Option<Uv> {
        fn symbol(name: &CStr) -> Option<*mut c_void> {
            // SAFETY: a look-up of a name that ends with NUL.
            let found = unsafe { dlsym(RTLD_DEFAULT, name.as_ptr()) };
            (!found.is_null()).then_some(found)
        }
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the fields have the signatures of the two headers, which don't change within a major version.
                unsafe { std::mem::transmute(symbol($name)?) }
            };
        }
        Some(Uv {
            event_loop: function!(c"napi_get_uv_event_loop"),
            handle_size: function!(c"uv_handle_size"),
            set_data: function!(c"uv_handle_set_data"),
            data: function!(c"uv_handle_get_data"),
            poll_init: function!(c"uv_poll_init"),
            poll_start: function!(c"uv_poll_start"),
            unref: function!(c"uv_unref"),
            close: function!(c"uv_close"),
        })
    }
}

/// The data of a handle, with the handle's own memory.
struct Watch {
    on_readable: Box<dyn Fn() -> bool>,
    _handle: Box<[u128]>,
}

/// Calls a function on the JavaScript thread of `env` whenever `fd` can be read, until it returns `false`. The loop is not
/// kept alive by it; the descriptor becomes a non-blocking one, and must stay open as long as the function is there.
///
/// Only for the main thread of Node itself: Bun has functions of these names that abort, and the loop of a worker ends
/// before the worker does. `false` where it can't be done; nothing is watched then.
pub fn watch(env: &Env, fd: BorrowedFd<'_>, on_readable: impl Fn() -> bool + 'static) -> bool {
    let Some(uv) = &*UV else { return false };
    let mut event_loop = null_mut();
    // SAFETY: the environment is that of this thread, and the result lives across the call.
    let status = unsafe { (uv.event_loop)(env.raw(), &raw mut event_loop) };
    if status != sys::Status::napi_ok || event_loop.is_null() {
        return false;
    }
    // SAFETY: tells a number.
    let size = unsafe { (uv.handle_size)(POLL) };
    let mut memory = vec![0u128; size.div_ceil(size_of::<u128>())].into_boxed_slice();
    let handle: Handle = memory.as_mut_ptr().cast();
    // SAFETY: the memory has the size of such a handle and does not move; it is freed by `closed` alone, or right here, where
    // libuv has refused and knows nothing of it.
    if unsafe { (uv.poll_init)(event_loop, handle, fd.as_raw_fd()) } != 0 {
        return false;
    }
    let data = Box::into_raw(Box::new(Watch { on_readable: Box::new(on_readable), _handle: memory }));
    // SAFETY: the handle is open; its data lives until `closed`.
    unsafe { (uv.set_data)(handle, data.cast()) };
    // SAFETY: the handle is open.
    unsafe { (uv.unref)(handle) };
    // SAFETY: the handle is open, and `readable` is for handles of this kind.
    let is_started = unsafe { (uv.poll_start)(handle, READABLE, readable) } == 0;
    if !is_started {
        // SAFETY: the handle is open, and not used any more from here on.
        unsafe { (uv.close)(handle, closed) };
    }
    is_started
}

unsafe extern "C" fn readable(handle: Handle, status: c_int, _events: c_int) {
    let Some(uv) = &*UV else { return };
    // SAFETY: a handle of `watch`, which is not closed yet.
    let data = unsafe { (uv.data)(handle) }.cast::<Watch>();
    // SAFETY: its data is a `Watch` until `closed`, and nothing changes it.
    let goes_on = (unsafe { &*data }.on_readable)();
    // At an error of the descriptor, such as a reset behind which there is more to read, libuv stops to watch it.
    // SAFETY: the handle is open.
    let is_watched = status == 0 || goes_on && unsafe { (uv.poll_start)(handle, READABLE, readable) } == 0;
    if !goes_on || !is_watched {
        // SAFETY: the handle is open, and not used any more from here on.
        unsafe { (uv.close)(handle, closed) };
    }
}

unsafe extern "C" fn closed(handle: Handle) {
    let Some(uv) = &*UV else { return };
    // SAFETY: the last that is heard of a handle of `watch`, whose memory is still there.
    let data = unsafe { (uv.data)(handle) }.cast::<Watch>();
    // SAFETY: `watch` has made it of a box, and nobody uses it any more.
    drop(unsafe { Box::from_raw(data) });
}
