//! A proxy on loopback that makes mistakes when it is told to, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What it was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn is_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/sha256:")
    }

    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

/// A mistake.
#[derive(Clone)]
pub enum Act {
    /// Answers itself: status line, headers, body.
    Reply(&'static str, String, String),
    /// Closes the connection after so many bytes of the answer's body.
    Cut(usize),
    /// Says that the body is only so long, and sends no more.
    Truncate(usize),
    /// Turns over a bit of this byte of the body.
    Alter(usize),
    /// Takes the range out of the request.
    IgnoreRange,
    /// Closes the connection after so many bytes of the request's body.
    CutUpload(usize),
    /// So many bytes of the body every ten milliseconds.
    Slow(usize),
}

type Match = Box<dyn Fn(&Asked) -> bool + Send>;

struct Fault {
    matches: Match,
    times: usize,
    act: Act,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    asked: Vec<Asked>,
}

/// The proxy.
pub struct Faulty {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Faulty {
    /// Stands before the server at this address.
    pub fn before(upstream: &str) -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state: Arc<Mutex<State>> = Arc::default();
        let (shared, upstream) = (state.clone(), upstream.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, upstream) = (shared.clone(), upstream.clone());
                std::thread::spawn(move || serve(stream, &upstream, &shared));
            }
        });
        Faulty { address, state }
    }

    /// Makes this mistake so many times, with requests of this kind.
    pub fn fault(&self, times: usize, act: Act, matches: impl Fn(&Asked) -> bool + Send + 'static) {
        self.state.lock().unwrap().faults.push(Fault { matches: Box::new(matches), times, act });
    }

    /// Makes no more mistakes.
    pub fn mend(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// What it was asked since the last time.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }

    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

/// Reads up to and including the empty line.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).ok()
}

fn fields(head: &str) -> Vec<(String, String)> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

fn length(fields: &[(String, String)]) -> usize {
    let found = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    found.map_or(0, |(_, value)| value.parse().unwrap())
}

fn serve(mut client: TcpStream, upstream: &str, state: &Mutex<State>) {
    while let Some(request) = head(&mut client) {
        let first: Vec<&str> = request.lines().next().unwrap_or_default().split(' ').collect();
        let [method, path, ..] = first[..] else { return };
        let asked = Asked { method: method.into(), path: path.into(), headers: fields(&request) };
        let act = {
            let mut state = state.lock().unwrap();
            state.asked.push(asked.clone());
            let fault = state.faults.iter_mut().find(|fault| fault.times > 0 && (fault.matches)(&asked));
            fault.map(|fault| {
                fault.times -= 1;
                fault.act.clone()
            })
        };
        if one(&mut client, upstream, &asked, act).is_none() {
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// What a proxy does for TLS, whatever host was asked for.
fn tunnel(client: &mut TcpStream, upstream: &str) -> Option<()> {
    let mut server = TcpStream::connect(upstream).ok()?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    let there = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut server, client);
    let _ = client.shutdown(Shutdown::Both);
    there.join().ok()
}

/// One request; `None` ends the connection.
fn one(client: &mut TcpStream, upstream: &str, asked: &Asked, act: Option<Act>) -> Option<()> {
    if asked.method == "CONNECT" {
        tunnel(client, upstream)?;
        return None;
    }
    let mut body = vec![0; length(&asked.headers)];
    if let Some(Act::CutUpload(count)) = act
        && body.len() > count
    {
        let _ = client.read_exact(&mut body[..count]);
        return None;
    }
    client.read_exact(&mut body).ok()?;
    if let Some(Act::Reply(status, headers, text)) = &act {
        let text = if asked.method == "HEAD" { "" } else { text.as_str() };
        let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{text}", text.len());
        return client.write_all(answer.as_bytes()).ok();
    }
    let mut request = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", asked.method, asked.path);
    for (name, value) in &asked.headers {
        let range = name.eq_ignore_ascii_case("range") && matches!(act, Some(Act::IgnoreRange));
        if !range && !name.eq_ignore_ascii_case("connection") {
            request += &format!("{name}: {value}\r\n");
        }
    }
    let mut server = TcpStream::connect(upstream).ok()?;
    server.write_all(format!("{request}\r\n").as_bytes()).ok()?;
    server.write_all(&body).ok()?;
    let answer = head(&mut server)?;
    let mut body = Vec::new();
    if asked.method != "HEAD" {
        server.read_to_end(&mut body).ok()?;
    }
    // The registry answers small things in chunks: passed on as they are, with the end of the connection.
    let chunked = answer.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let answer = answer.replace("Connection: close\r\n", "");
    match act {
        Some(Act::Cut(count)) => {
            client.write_all(answer.as_bytes()).ok()?;
            let _ = client.write_all(&body[..count.min(body.len())]);
            None
        }
        Some(Act::Truncate(count)) => {
            let shorter = body.len().min(count);
            let answer =
                answer.replace(&format!("Content-Length: {}", body.len()), &format!("Content-Length: {shorter}"));
            client.write_all(answer.as_bytes()).ok()?;
            client.write_all(&body[..shorter]).ok()
        }
        Some(Act::Slow(count)) => {
            client.write_all(answer.as_bytes()).ok()?;
            for piece in body.chunks(count) {
                client.write_all(piece).ok()?;
                std::thread::sleep(Duration::from_millis(10));
            }
            Some(())
        }
        act => {
            if let (Some(Act::Alter(at)), false) = (act, body.is_empty()) {
                let at = at.min(body.len() - 1);
                body[at] ^= 1;
            }
            client.write_all(answer.as_bytes()).ok()?;
            client.write_all(&body).ok()?;
            (!chunked).then_some(())
        }
    }
}
