//! Bytes between the caller's terminal and the container's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags};
use rustix::io::{Errno, read, write};
use rustix::process::Pid;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr,
};

use crate::spec::TerminalSize;
use crate::steps::terminal::resize;
use crate::supervise::engine::Engine;
use crate::supervise::engine::token::Token;
use nsrs_base::error::Result;
use nsrs_base::sys::fds::stdio;
use nsrs_base::sys::poll;

/// Standard input is readable.
const INPUT: u32 = 10;
/// Standard output is writable.
const OUTPUT: u32 = 11;
/// The container's terminal is readable or writable.
const MASTER: u32 = 12;

/// What a pipe takes without blocking once it is writable (`PIPE_BUF`).
const CHUNK: usize = 4096;
/// End of input to a terminal: Ctrl-D, unless it was told otherwise.
const END_OF_INPUT: u8 = 4;
/// The keys that a terminal makes a signal of (termios(3), ISIG).
const SIGNAL_KEYS: [(SpecialCodeIndex, i32); 3] = [
    (SpecialCodeIndex::VINTR, libc::SIGINT),
    (SpecialCodeIndex::VQUIT, libc::SIGQUIT),
    (SpecialCodeIndex::VSUSP, libc::SIGTSTP),
];

/// The relay of one terminal. Dropping it gives the caller's terminal its mode back.
pub struct Relay {
    master: OwnedFd,
    saved: Option<Termios>,
    to_master: Vec<u8>,
    to_output: Vec<u8>,
    input_open: bool,
    /// False for a file, which can't be polled and never blocks: it is read whenever the container's terminal takes something.
    input_polled: bool,
    /// The last byte that was written to the terminal: end of input counts only at the start of a line.
    last: Option<u8>,
    /// The container's side is closed and drained.
    pub ended: bool,
    output_polled: bool,
    /// Signals that the keys typed since stand for, in the container's terminal.
    pub keys: Vec<i32>,
    /// Nobody reads the output any more.
    pub reader_gone: bool,
}

fn input() -> BorrowedFd<'static> {
    stdio()[0]
}

fn output() -> BorrowedFd<'static> {
    stdio()[1]
}

/// The size of the caller's terminal, from whichever of the three is one.
#[must_use]
pub fn caller_size() -> Option<TerminalSize> {
    let size = stdio().into_iter().find_map(|fd| tcgetwinsize(fd).ok())?;
    (size.ws_col > 0 && size.ws_row > 0).then_some(TerminalSize { cols: size.ws_col, rows: size.ws_row })
}

impl Relay {
    /// Starts relaying; the caller's terminal becomes raw, so that every key reaches the container.
    ///
    /// # Errors
    /// The event loop fails.
    pub fn start(master: OwnedFd, engine: &Engine) -> Result<Relay> {
        let _ = rustix::io::ioctl_fionbio(&master, true);
        let saved = if isatty(input()) { tcgetattr(input()).ok() } else { None };
        let relay = Relay {
            master,
            saved,
            to_master: Vec::new(),
            to_output: Vec::new(),
            input_open: true,
            input_polled: engine.watch(input(), Token::Front(INPUT), EventFlags::IN).is_ok(),
            last: None,
            ended: false,
            output_polled: engine.watch(output(), Token::Front(OUTPUT), EventFlags::empty()).is_ok(),
            keys: Vec::new(),
            reader_gone: false,
        };
        relay.raw();
        relay.follow_size();
        engine.watch(&relay.master, Token::Front(MASTER), EventFlags::IN)?;
        relay.watch(engine)?;
        Ok(relay)
    }

    /// Sets the caller's terminal to raw mode.
    pub fn raw(&self) {
        if let Some(saved) = &self.saved {
            let mut raw = saved.clone();
            raw.make_raw();
            let _ = tcsetattr(input(), OptionalActions::Now, &raw);
        }
    }

    /// Gives the caller's terminal its mode back.
    pub fn restore(&self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(input(), OptionalActions::Drain, saved);
        }
    }

    /// Gives the container's terminal the size of the caller's.
    pub fn follow_size(&self) {
        if let Some(size) = caller_size() {
            let _ = resize(&self.master, size);
        }
    }

    fn close_input(&mut self, engine: &Engine) {
        if std::mem::take(&mut self.input_open) {
            engine.unwatch(input());
            let modes = tcgetattr(&self.master).ok();
            let code = modes.as_ref().map_or(END_OF_INPUT, |modes| modes.special_codes[SpecialCodeIndex::VEOF]);
            let by_line = modes.is_some_and(|modes| modes.local_modes.contains(LocalModes::ICANON));
            // Behind an unfinished line the first only ends that line.
            if by_line && self.last.is_some_and(|last| last != b'\n') {
                self.to_master.push(code);
            }
            self.to_master.push(code);
        }
    }

    fn type_in(&mut self, bytes: &[u8]) {
        self.to_master.extend_from_slice(bytes);
        self.last = bytes.last().copied().or(self.last);
        if !bytes.iter().any(u8::is_ascii_control) {
            return;
        }
        let Ok(modes) = tcgetattr(&self.master) else { return };
        if modes.local_modes.contains(LocalModes::ISIG) {
            let codes = SIGNAL_KEYS.map(|(index, signal)| (modes.special_codes[index], signal));
            // A key that was switched off has the code 0.
            let meant =
                |byte: &u8| codes.iter().find(|(code, _)| code == byte && *code != 0).map(|(_, signal)| *signal);
            self.keys.extend(bytes.iter().filter_map(meant));
        }
    }

    /// The process group that the container's terminal gives signals of its keys to.
    pub fn foreground(&self) -> Option<Pid> {
        tcgetpgrp(&self.master).ok()
    }

    /// Moves what can be moved after one of the descriptors is ready.
    ///
    /// # Errors
    /// The event loop fails.
    pub fn ready(&mut self, number: u32, engine: &Engine) -> Result<()> {
        match number {
            INPUT => self.read_input(engine),
            MASTER => {
                // It is called for a file's sake, too, while what was read before is not passed on yet.
                if self.input_polled || !self.input_open || self.to_output.is_empty() {
                    self.read_master();
                }
                if self.reads_file() {
                    self.read_input(engine);
                }
            }
            // Nothing is waited for: the reader is gone, which epoll would tell again and again.
            OUTPUT if self.to_output.is_empty() => self.unwatch_output(engine),
            _ => {}
        }
        self.write_master();
        self.write_output(number == OUTPUT);
        if self.reader_gone {
            self.unwatch_output(engine);
        }
        self.watch(engine)
    }

    /// Is there a file to read from, and is all that was read from it passed on?
    fn reads_file(&self) -> bool {
        self.input_open && !self.input_polled && self.to_master.is_empty()
    }

    fn unwatch_output(&mut self, engine: &Engine) {
        if std::mem::take(&mut self.output_polled) {
            engine.unwatch(output());
        }
    }

    fn read_input(&mut self, engine: &Engine) {
        let mut chunk = [0; CHUNK];
        match read(input(), &mut chunk) {
            Ok(0) => self.close_input(engine),
            Ok(count) => self.type_in(&chunk[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.close_input(engine),
        }
    }

    fn read_master(&mut self) {
        let mut chunk = [0; CHUNK];
        match read(&self.master, &mut chunk) {
            Ok(count @ 1..) => self.to_output.extend_from_slice(&chunk[..count]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            // EIO: the last program on the terminal has closed it.
            Ok(0) | Err(_) => self.ended = true,
        }
    }

    fn write_master(&mut self) {
        while !self.to_master.is_empty() {
            match write(&self.master, &self.to_master) {
                Ok(count) => drop(self.to_master.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => return self.to_master.clear(),
            }
        }
    }

    fn write_output(&mut self, writable: bool) {
        if self.to_output.is_empty() || (self.output_polled && !writable) {
            return;
        }
        let most = if self.output_polled { self.to_output.len().min(CHUNK) } else { self.to_output.len() };
        match write(output(), &self.to_output[..most]) {
            Ok(count) => drop(self.to_output.drain(..count)),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => {
                self.to_output.clear();
                self.reader_gone = true;
            }
        }
    }

    /// Watches each descriptor only for what can be done with it, so that a full side stops its source.
    fn watch(&self, engine: &Engine) -> Result<()> {
        if !self.ended {
            let read = if self.to_output.is_empty() { EventFlags::IN } else { EventFlags::empty() };
            let writes = !self.to_master.is_empty() || self.reads_file();
            let write = if writes { EventFlags::OUT } else { EventFlags::empty() };
            engine.rewatch(&self.master, Token::Front(MASTER), read | write)?;
        }
        if self.input_open && self.input_polled {
            engine.rewatch(
                input(),
                Token::Front(INPUT),
                if self.to_master.is_empty() { EventFlags::IN } else { EventFlags::empty() },
            )?;
        }
        if self.output_polled {
            let wanted = if self.to_output.is_empty() { EventFlags::empty() } else { EventFlags::OUT };
            engine.rewatch(output(), Token::Front(OUTPUT), wanted)?;
        }
        Ok(())
    }

    /// After the container's end: everything it wrote last, whatever it takes.
    pub fn drain(&mut self) {
        while !self.ended {
            let before = self.to_output.len();
            self.read_master();
            if self.to_output.len() == before && !self.ended {
                break;
            }
        }
        while !self.to_output.is_empty() {
            match write(output(), &self.to_output) {
                Ok(count) => drop(self.to_output.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let _ = poll::wait(&mut [PollFd::from_borrowed_fd(output(), PollFlags::OUT)], None);
                }
                Err(_) => break,
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.restore();
    }
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }
}
