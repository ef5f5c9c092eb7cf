//! A small S3 server in this process, for what real ones do rarely: it can lie, fail, stall and hang up. It answers by itself, or passes
//! on what a real one says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a client asks.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    /// The key, without the bucket.
    pub key: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// All before the body, without the empty line.
    head: String,
    /// How many requests there were before.
    pub number: usize,
}

/// What becomes of a request.
pub enum Reply {
    /// What a good server would do.
    Serve,
    /// That, without the object's last byte as it was sent.
    Corrupt,
    /// That, and the last byte of the answer's body is another.
    CorruptAnswer,
    /// That, a bit at a time.
    Slowly,
    /// That, and the connection breaks before the answer.
    ServeAndHangUp,
    /// That, and the connection breaks after so many bytes of the answer's body.
    ServePart(usize),
    /// That, and the connection breaks after half of the answer.
    ServeHalf,
    /// The connection breaks when the server has half of the body.
    SendHalf,
    /// An error.
    Refuse(u16, &'static str),
    /// This, as an answer of 200.
    Say(String),
    /// An answer with this status, and no end.
    Endless(u16),
    /// Silence.
    Stall,
    /// The connection breaks, and nothing is done.
    HangUp,
}

type Script = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    log: Vec<Request>,
    /// The real server, as `host:port`.
    upstream: Option<String>,
}

/// The server; it listens until the test process ends.
pub struct Fake {
    /// `http://127.0.0.1:PORT`.
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Fake {
    /// Starts one that does what `script` says of each request.
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Fake {
        Fake::listen(None, script)
    }

    /// The same before a real server, `http://127.0.0.1:PORT`.
    pub fn before(upstream: &str, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Fake {
        Fake::listen(Some(upstream.trim_start_matches("http://").to_owned()), script)
    }

    fn listen(upstream: Option<String>, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { upstream, ..State::default() }));
        let script: Arc<Script> = Arc::new(Box::new(script));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (state, script) = (shared.clone(), script.clone());
                thread::spawn(move || connection(stream.unwrap(), &state, &script));
            }
        });
        Fake { address, state }
    }

    /// The requests so far, as `METHOD key?query`.
    pub fn log(&self) -> Vec<String> {
        let line = |request: &Request| match request.query.as_str() {
            "" => format!("{} {}", request.method, request.key),
            query => format!("{} {}?{query}", request.method, request.key),
        };
        self.state.lock().unwrap().log.iter().map(line).collect()
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().log.clone()
    }

    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.state.lock().unwrap().objects.get(key).cloned()
    }

    /// How many uploads nobody completed or gave up.
    pub fn unfinished(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }
}

fn connection(stream: TcpStream, state: &Mutex<State>, script: &Script) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(mut request) = read(&mut reader) {
        {
            let mut state = state.lock().unwrap();
            request.number = state.log.len();
            state.log.push(request.clone());
        }
        let wanted = script(&request);
        let upstream = state.lock().unwrap().upstream.clone();
        let serve = |corrupt| match &upstream {
            Some(upstream) => pass_on(upstream, &request, corrupt, request.body.len()),
            None => answer(&request, &mut state.lock().unwrap(), corrupt),
        };
        let (head, body) = match wanted {
            Reply::Serve => serve(false),
            Reply::CorruptAnswer => {
                let (head, mut body) = serve(false);
                if let Some(last) = body.last_mut() {
                    *last ^= 1;
                }
                (head, body)
            }
            Reply::Slowly => {
                let (head, body) = serve(false);
                let body = if request.method == "HEAD" { Vec::new() } else { body };
                let whole = [head, body].concat();
                for piece in whole.chunks(whole.len() / 8 + 1) {
                    if stream.write_all(piece).is_err() {
                        return;
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                continue;
            }
            Reply::ServeHalf => {
                let (head, body) = serve(false);
                let whole = [head, body].concat();
                let _ = stream.write_all(&whole[..whole.len() / 2]);
                return;
            }
            Reply::SendHalf => {
                if let Some(upstream) = &upstream {
                    pass_on(upstream, &request, false, request.body.len() / 2);
                }
                return;
            }
            Reply::Corrupt => serve(true),
            Reply::ServeAndHangUp => {
                serve(false);
                return;
            }
            Reply::ServePart(length) => {
                let (head, body) = serve(false);
                let _ = stream.write_all(&head);
                let _ = stream.write_all(&body[..length]);
                return;
            }
            Reply::Refuse(status, code) => error(status, code),
            Reply::Say(text) => reply(200, "", text),
            Reply::Endless(status) => {
                let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/xml\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
                return;
            }
            Reply::Stall => loop {
                thread::park();
            },
            Reply::HangUp => return,
        };
        let body = if request.method == "HEAD" { Vec::new() } else { body };
        if stream.write_all(&head).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut head = line.clone();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        head += &line;
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    assert!(!headers.contains_key("transfer-encoding"), "bodies have a length");
    assert!(!headers.get("content-encoding").is_some_and(|coding| coding.contains("aws-chunked")));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key).to_owned();
    // The SDK names the operation in the query, for its own logs.
    let query: Vec<&str> = query.split('&').filter(|part| !part.starts_with("x-id=")).collect();
    Some(Request { method, key, query: query.join("&"), headers, body, head, number: 0 })
}

/// What a real server answers to a request, of whose body it gets so many bytes. The signature is of the name by which it was asked, so
/// that one stays.
fn pass_on(upstream: &str, request: &Request, corrupt: bool, length: usize) -> (Vec<u8>, Vec<u8>) {
    let mut stream = TcpStream::connect(upstream).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut body = request.body.clone();
    if let (true, Some(last)) = (corrupt, body.last_mut()) {
        *last ^= 1;
    }
    let head = format!("{}Connection: close\r\n\r\n", request.head);
    stream.write_all(&[head.as_bytes(), &body[..length]].concat()).unwrap();
    if length < request.body.len() {
        return (Vec::new(), Vec::new());
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let body = answer.split_off(end);
    (answer, body)
}

fn reply(status: u16, headers: &str, body: impl Into<Vec<u8>>) -> (Vec<u8>, Vec<u8>) {
    let body = body.into();
    let date = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    let head = format!("HTTP/1.1 {status} X\r\n{date}{headers}Content-Length: {}\r\n\r\n", body.len());
    (head.into_bytes(), body)
}

fn error(status: u16, code: &str) -> (Vec<u8>, Vec<u8>) {
    let body = match code {
        "" => "<html>not what you think</html>".to_owned(),
        code => format!("<Error><Code>{code}</Code><Message>as told</Message></Error>"),
    };
    reply(status, "Content-Type: application/xml\r\n", body)
}

fn answer(request: &Request, state: &mut State, corrupt: bool) -> (Vec<u8>, Vec<u8>) {
    let parameter = |name: &str| {
        request.query.split('&').find_map(|part| match part.split_once('=') {
            Some((key, value)) if key == name => Some(value.to_owned()),
            None if part == name => Some(String::new()),
            _ => None,
        })
    };
    let tag = "ETag: \"tag\"\r\n";
    let key = request.key.clone();
    let mut body = request.body.clone();
    if let (true, Some(last)) = (corrupt, body.last_mut()) {
        *last ^= 1;
    }
    let upload = parameter("uploadId");
    match (request.method.as_str(), upload) {
        ("POST", None) => {
            let id = format!("upload-{}", request.number);
            state.uploads.insert(id.clone(), BTreeMap::new());
            let xml = format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            );
            reply(200, "", xml)
        }
        ("PUT", Some(id)) => match state.uploads.get_mut(&id) {
            Some(parts) => {
                parts.insert(parameter("partNumber").unwrap().parse().unwrap(), body);
                reply(200, tag, "")
            }
            None => error(404, "NoSuchUpload"),
        },
        ("POST", Some(id)) => match state.uploads.remove(&id) {
            Some(parts) => {
                state.objects.insert(key, parts.into_values().flatten().collect());
                reply(200, "", "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")
            }
            None => error(404, "NoSuchUpload"),
        },
        ("DELETE", Some(id)) => {
            state.uploads.remove(&id);
            reply(204, "", "")
        }
        ("PUT", None) => {
            if request.headers.contains_key("if-none-match") && state.objects.contains_key(&key) {
                return error(412, "PreconditionFailed");
            }
            state.objects.insert(key, body);
            reply(200, tag, "")
        }
        ("DELETE", None) => {
            state.objects.remove(&key);
            reply(204, "", "")
        }
        ("GET", None) if parameter("list-type").is_some() => {
            let prefix = parameter("prefix").unwrap_or_default().replace("%2F", "/");
            let listed: String = state
                .objects
                .iter()
                .filter(|(key, _)| key.starts_with(&prefix))
                .map(|(key, body)| {
                    format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", body.len())
                })
                .collect();
            reply(200, "", format!("<ListBucketResult>{listed}</ListBucketResult>"))
        }
        (_, _) => match state.objects.get(&key) {
            None => error(404, "NoSuchKey"),
            Some(body) => match request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")) {
                None => reply(200, tag, body.clone()),
                Some(range) => {
                    let (from, to) = range.split_once('-').unwrap();
                    let from: usize = from.parse().unwrap();
                    let to = to.parse().map_or(body.len() - 1, |to: usize| to.min(body.len() - 1));
                    let headers = format!("{tag}Content-Range: bytes {from}-{to}/{}\r\n", body.len());
                    reply(206, &headers, &body[from..=to])
                }
            },
        },
    }
}
