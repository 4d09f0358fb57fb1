//! Progress on a terminal: a line for each layer, rewritten in place, with messages above them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use super::event::{Phase, ProgressEvent};
use super::plain;
use super::text::{short, size};

/// How often the lines are drawn.
pub const FRAME: Duration = Duration::from_millis(100);
/// Over which time a rate is measured.
const WINDOW: Duration = Duration::from_secs(3);

/// The lines on the terminal.
#[derive(Debug, Default)]
pub struct Screen {
    lines: Vec<Line>,
    /// How many lines are on the terminal, to be drawn over.
    drawn: usize,
    last: Option<Instant>,
    /// The last event isn't drawn yet.
    is_behind: bool,
}

#[derive(Debug)]
struct Line {
    digest: String,
    phase: Phase,
    current: u64,
    total: u64,
    /// Bytes at several times, for the rate.
    past: VecDeque<(Instant, u64)>,
}

impl Line {
    fn rate(&self) -> Option<f64> {
        let ((start, before), (end, after)) = (self.past.front()?, self.past.back()?);
        let time = end.duration_since(*start).as_secs_f64();
        (time > 0.2 && after > before).then(|| (after - before) as f64 / time)
    }

    fn text(&self) -> String {
        let name = short(&self.digest);
        let of = match (self.total, self.current) {
            (0, current) => size(current),
            (total, current) => format!("{} of {}", size(current.min(total)), size(total)),
        };
        match self.phase {
            Phase::Waiting => format!("{name}  waiting"),
            Phase::Downloading | Phase::Uploading => {
                let verb = if self.phase == Phase::Downloading { "downloading" } else { "uploading" };
                let rate = self.rate().map_or_else(String::new, |rate| format!("  {}/s", size(rate as u64)));
                format!("{name}  {verb:<11}  {of}{rate}")
            }
            Phase::Verifying => format!("{name}  verifying    {}", size(self.total)),
            Phase::Unpacking => format!("{name}  unpacking    {of}"),
            Phase::Present => format!("{name}  already exists"),
            Phase::Done => format!("{name}  done         {}", size(self.total)),
        }
    }
}

impl Screen {
    /// Shows an event. Bytes that moved right after a frame are left out of it: [`Screen::catch_up`] must be called then.
    pub fn show(&mut self, event: &ProgressEvent) {
        let said = match event {
            ProgressEvent::Layer { digest, phase, current, total } => {
                let is_new = self.update(digest, *phase, *current, *total);
                match is_new || self.last.is_none_or(|last| last.elapsed() >= FRAME) {
                    true => self.draw(None),
                    false => self.is_behind = true,
                }
                return;
            }
            other => plain(other),
        };
        match (event, said) {
            (ProgressEvent::Done { .. }, Some(said)) => {
                self.end();
                let _ = writeln!(std::io::stderr(), "{said}");
            }
            (_, Some(said)) => self.draw(Some(&said)),
            (_, None) => {}
        }
    }

    /// Whether an event isn't drawn yet.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Draws what was left out.
    pub fn catch_up(&mut self) {
        if self.is_behind {
            self.draw(None);
        }
    }

    /// Draws a last time; what follows is printed below.
    pub fn end(&mut self) {
        if !self.lines.is_empty() {
            self.draw(None);
        }
        self.lines.clear();
        (self.drawn, self.is_behind) = (0, false);
    }

    /// Returns whether the layer is new, or in a new phase.
    fn update(&mut self, digest: &str, phase: Phase, current: u64, total: u64) -> bool {
        let known = self.lines.len();
        let index = self.lines.iter().position(|line| line.digest == digest).unwrap_or_else(|| {
            let line = Line { digest: digest.to_owned(), phase, current, total, past: VecDeque::new() };
            self.lines.push(line);
            self.lines.len() - 1
        });
        let line = &mut self.lines[index];
        let now = Instant::now();
        let is_new = line.phase != phase || index == known;
        if is_new {
            line.past.clear();
        }
        line.past.push_back((now, current));
        while line.past.front().is_some_and(|(then, _)| now.duration_since(*then) > WINDOW) {
            line.past.pop_front();
        }
        (line.phase, line.current, line.total) = (phase, current, total);
        is_new
    }

    fn draw(&mut self, said: Option<&str>) {
        let (width, height) = match rustix::termios::tcgetwinsize(std::io::stderr()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 1 => (usize::from(size.ws_col), usize::from(size.ws_row)),
            _ => (80, 24),
        };
        let text = frame(&self.lines, self.drawn, said, width, height);
        self.drawn = self.lines.len().min(height - 1);
        (self.last, self.is_behind) = (Some(Instant::now()), false);
        // One write, so that nothing flickers.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// What must be written to draw these lines over `drawn` older ones, with something said above them.
fn frame(lines: &[Line], drawn: usize, said: Option<&str>, width: usize, height: usize) -> String {
    let mut text = String::new();
    if drawn > 0 {
        let _ = write!(text, "\x1b[{drawn}A");
    }
    if let Some(said) = said {
        let _ = writeln!(text, "\r{said}\x1b[K");
    }
    // Where not all lines fit, those that are finished are left out first.
    let most = height.saturating_sub(1).max(1);
    let finished = lines.len().saturating_sub(most);
    let mut left_out = 0;
    let shown = lines.iter().filter(|line| {
        let leave_out = line.phase.is_end() && left_out < finished;
        left_out += usize::from(leave_out);
        !leave_out
    });
    for line in shown.take(most) {
        let line: String = line.text().chars().take(width.saturating_sub(1)).collect();
        let _ = writeln!(text, "\r{line}\x1b[K");
    }
    text.push_str("\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(digest: &str, phase: Phase) -> Line {
        Line { digest: digest.into(), phase, current: 500, total: 2000, past: VecDeque::new() }
    }

    #[test]
    fn a_frame_is_drawn_over_the_last() {
        let lines = [line("sha256:a", Phase::Downloading), line("sha256:b", Phase::Done)];
        let text = frame(&lines, 2, Some("said"), 80, 24);
        assert_eq!(
            text,
            "\x1b[2A\rsaid\x1b[K\n\ra  downloading  500 B of 2.0 kB\x1b[K\n\rb  done         2.0 kB\x1b[K\n\x1b[J"
        );
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_cut() {
        let lines = [line("sha256:a", Phase::Done), line("sha256:b", Phase::Waiting), line("sha256:c", Phase::Waiting)];
        assert_eq!(frame(&lines, 0, None, 8, 3), "\rb  wait\x1b[K\n\rc  wait\x1b[K\n\x1b[J");
    }

    #[test]
    fn a_phase_is_drawn_at_once_and_bytes_soon() {
        let mut screen = Screen::default();
        let mut show = |phase, current| {
            screen.show(&ProgressEvent::Layer { digest: "sha256:a".into(), phase, current, total: 2000 });
            screen.is_behind()
        };
        let shown = [
            show(Phase::Downloading, 1),
            show(Phase::Downloading, 2000),
            show(Phase::Verifying, 2000),
            show(Phase::Unpacking, 0),
            show(Phase::Unpacking, 700),
        ];
        assert_eq!(shown, [false, true, false, false, true]);
        screen.catch_up();
        assert!(!screen.is_behind());
        assert_eq!(screen.lines[0].text(), "a  unpacking    700 B of 2.0 kB");
    }

    #[test]
    fn a_rate_needs_time() {
        let mut line = line("a", Phase::Downloading);
        let now = Instant::now();
        line.past = VecDeque::from([(now, 0), (now + Duration::from_secs(2), 4_000_000)]);
        assert_eq!(line.rate(), Some(2_000_000.0));
        line.past.pop_front();
        assert_eq!(line.rate(), None);
    }
}
