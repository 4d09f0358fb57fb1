//! What happens, told while it happens: as a program reads it (JSON lines) or as a person does.
//!
//! All of it goes to the standard error: the standard output is for results.

use std::io::Write;
use std::sync::{Arc, Mutex};

use nsrs_core::error::{self, Error};
use serde::Serialize;

/// How progress is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A line a layer, rewritten in place (a terminal).
    Live,
    /// A line for each thing that is finished.
    Plain,
    /// One JSON object a line, errors included.
    Json,
    /// Warnings and errors only.
    Quiet,
}

/// What a layer (or any blob that is worth a line) is going through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// In the queue, or another process fetches the same blob.
    Waiting,
    /// Bytes come in.
    Downloading,
    /// Bytes go out.
    Uploading,
    /// It is being unpacked.
    Unpacking,
    /// Nothing was to be done: it was there.
    Present,
    /// Finished.
    Done,
}

/// One thing that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// An image is looked up in a registry.
    Resolving {
        /// Its full name.
        reference: String,
    },
    /// A layer got further.
    Layer {
        /// The digest of its blob.
        digest: String,
        /// What it is going through.
        phase: Phase,
        /// Bytes of this phase so far.
        current: u64,
        /// How many there will be, 0 if unknown.
        total: u64,
    },
    /// Something the user should know and that stops nothing.
    Warning {
        /// What, in a sentence.
        message: String,
    },
    /// Something is done again after a failure.
    Retry {
        /// What and why.
        message: String,
        /// After how many milliseconds.
        wait: u64,
    },
    /// All is done.
    Done {
        /// The name of the image.
        reference: String,
        /// The digest of its manifest.
        digest: String,
        /// How long it took.
        milliseconds: u64,
    },
}

/// Where events go; cheap to clone, may be used by any thread.
#[derive(Clone, Debug)]
pub struct Progress {
    mode: Mode,
    lines: Arc<Mutex<()>>,
}

impl Progress {
    /// Tells events in this way.
    #[must_use]
    pub fn new(mode: Mode) -> Progress {
        Progress { mode, lines: Arc::default() }
    }

    /// Tells one event. That nobody listens is no failure.
    pub fn tell(&self, event: &Event) {
        let _one_at_a_time = self.lines.lock();
        let line = match self.mode {
            Mode::Json => serde_json::to_string(event).unwrap_or_default(),
            mode => match event {
                Event::Warning { message } => format!("nsrs: {message}"),
                _ if mode == Mode::Quiet => return,
                Event::Resolving { .. } => return,
                Event::Layer { digest, phase: Phase::Done | Phase::Present, .. } => format!("{digest}: done"),
                Event::Layer { .. } => return,
                Event::Retry { message, wait } => format!("{message}; again in {wait} ms"),
                Event::Done { reference, digest, milliseconds } => {
                    format!("{reference}: {digest} in {:.1} s", *milliseconds as f64 / 1000.0)
                }
            },
        };
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// Tells a warning.
    pub fn warn(&self, message: impl Into<String>) {
        self.tell(&Event::Warning { message: message.into() });
    }

    /// Tells the errors that end the program: `{"event":"error",…}` with the fields of the record in JSON mode.
    pub fn fail(&self, errors: &[Error]) {
        if self.mode != Mode::Json {
            eprint!("{}", error::report(errors));
            return;
        }
        for error in errors {
            let mut line = serde_json::to_value(error).unwrap_or_default();
            line["event"] = "error".into();
            line["code"] = error.code.name().into();
            line["message"] = error.to_string().into();
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}
