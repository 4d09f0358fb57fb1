//! For tests of locks: a lock of this process's own would not hold it off.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Another process that holds a file locked, until it is ended or this is dropped.
pub struct Holder(Child);

impl Holder {
    /// Locks a file as a supervisor does.
    pub fn of(path: &Path) -> Holder {
        // struct flock on 64 bits, see fcntl(2).
        let script = "use Fcntl; open F, '+<', $ARGV[0] or die; my $lock = pack('s s x4 q q i', F_WRLCK, 0, 0, 0, 0);
            fcntl(F, F_SETLK, $lock) or die; $| = 1; print 1; sleep 60";
        let mut child = Command::new("perl").args(["-e", script]).arg(path).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Holder(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
