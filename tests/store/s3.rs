//! What an S3 store makes of servers that fail, stall and lie.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tazpod::adapters::store::{Access, Keys, Limits, Outcome, Place, S3Store};
use tazpod::vault::store::{Created, Kind, Store, StoreError};

use crate::fake::{Fake, Reply, Request};
use crate::suite::{Noise, get, hash};
use crate::{access, at, block_on, impatient, servers, unique};

const MIB: usize = 1024 * 1024;

fn open(endpoint: &str, access: Access) -> S3Store {
    block_on(S3Store::open(&at(endpoint, "bucket", ""), access))
}

/// A store on a server that does as told. It waits for one that is only slow: the machine may be busy.
fn on(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Fake, S3Store) {
    let fake = Fake::start(script);
    let limits = Limits { silence: Duration::from_secs(20), ..impatient().limits };
    let store = open(&fake.address, Access { limits, ..access() });
    (fake, store)
}

/// The same for a server that stalls.
fn hurried(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Fake, S3Store) {
    let fake = Fake::start(script);
    let store = open(&fake.address, impatient());
    (fake, store)
}

fn put(store: &S3Store, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
    block_on(store.put(key, bytes.len() as u64, hash(bytes), &mut &bytes[..]))
}

/// Every operation's error.
fn errors(store: &S3Store) -> Vec<(&'static str, StoreError)> {
    let created = match block_on(store.create("commits/1", b"x")) {
        Ok(Created::Unknown(error)) | Err(error) => error,
        Ok(other) => panic!("{other:?}"),
    };
    vec![
        ("get", block_on(store.get("gen/x", 10, &mut Vec::new())).unwrap_err()),
        ("size", block_on(store.size("gen/x")).unwrap_err()),
        ("list", block_on(store.list("gen/", "")).unwrap_err()),
        ("put", put(store, "gen/x", b"x").unwrap_err()),
        ("delete", block_on(store.delete("gen/x")).unwrap_err()),
        ("create", created),
    ]
}

fn all_are(kind: Kind, store: &S3Store) {
    for (operation, error) in errors(store) {
        assert_eq!(error.kind, kind, "{operation}: {error:?}");
    }
}

#[test]
fn a_wrong_key_is_a_matter_of_credentials() {
    for keys in [
        Keys { secret: "wrong-secret-wrong-secret".into(), ..servers::keys() },
        Keys { id: "NOBODYSKEY".into(), ..servers::keys() },
    ] {
        let config = unique(servers::seaweedfs());
        block_on(block_on(S3Store::open(&config, access())).setup()).unwrap();
        let store = block_on(S3Store::open(&config, Access { keys: Some(keys), ..Access::default() }));
        all_are(Kind::Credentials, &store);
        let created = block_on(store.create("commits/1", b"x"));
        assert!(created.is_err(), "{created:?}");
    }
}

#[test]
fn nobody_listens() {
    let (_socket, address) = servers::nobody();
    let store = open(&address, impatient());
    let started = Instant::now();
    all_are(Kind::Unreachable, &store);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn a_name_that_does_not_exist() {
    let store = open("http://tazpod.invalid:9000", impatient());
    let error = block_on(store.size("gen/x")).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
}

#[test]
fn a_server_that_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = Arc::new(Mutex::new(Vec::new()));
    let address = format!("http://{}", listener.local_addr().unwrap());
    let kept = held.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            kept.lock().unwrap().push(stream.unwrap());
        }
    });
    let store = open(&address, impatient());
    let started = Instant::now();
    let error = block_on(store.size("gen/x")).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
    // Two attempts of a second, and a pause between.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(held.lock().unwrap().len(), 2);
}

#[test]
fn silence_in_the_middle_of_an_upload() {
    // The bucket is looked at, the upload begun; then nobody reads any more.
    let (fake, store) = hurried(|request| match request.query.contains("partNumber=2") {
        true => Reply::Stall,
        false => Reply::Serve,
    });
    let bytes = Noise::bytes(1, 20 * MIB);
    let started = Instant::now();
    let error = put(&store, "gen/x", &bytes).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(fake.unfinished(), 0);
    assert_eq!(fake.object("gen/x"), None);
}

#[test]
fn silence_in_the_middle_of_a_whole_upload() {
    let fake = Fake::start(|request| match request.method == "PUT" {
        true => Reply::Stall,
        false => Reply::Serve,
    });
    let limits = Limits { silence: Duration::from_secs(1), ..Limits::default() };
    let store = open(&fake.address, Access { limits, hashes: true, ..access() });
    let bytes = Noise::bytes(1, 20 * MIB);
    let started = Instant::now();
    let mut body = &bytes[..];
    let put = store.put_whole("gen/x", bytes.len() as u64, hash(&bytes), &mut body);
    let error = block_on(put).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let puts = fake.requests().into_iter().filter(|request| request.method == "PUT").count();
    assert_eq!((puts, fake.object("gen/x")), (1, None));
}

#[test]
fn an_upload_that_is_dropped_is_given_up() {
    let (fake, store) = on(|request| match request.query.contains("partNumber=2") {
        true => Reply::Stall,
        false => Reply::Serve,
    });
    let bytes = Noise::bytes(1, 20 * MIB);
    block_on(async {
        let mut body = &bytes[..];
        let upload = store.put("gen/x", bytes.len() as u64, hash(&bytes), &mut body);
        assert!(tokio::time::timeout(Duration::from_secs(2), upload).await.is_err());
        assert_eq!(fake.unfinished(), 1);
        let started = Instant::now();
        while fake.unfinished() > 0 {
            assert!(started.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_create_is_asked_once_and_says_what_is_known() {
    type Expected = fn(&Result<Created, StoreError>) -> bool;
    fn unknown(kind: Kind, result: &Result<Created, StoreError>) -> bool {
        matches!(result, Ok(Created::Unknown(error)) if error.kind == kind)
    }
    fn failed(kind: Kind, result: &Result<Created, StoreError>) -> bool {
        matches!(result, Err(error) if error.kind == kind)
    }
    let cases: Vec<(fn() -> Reply, Expected)> = vec![
        (|| Reply::Serve, |result| matches!(result, Ok(Created::Made))),
        (|| Reply::Refuse(412, "PreconditionFailed"), |result| matches!(result, Ok(Created::Exists))),
        (|| Reply::Refuse(409, "ConditionalRequestConflict"), |result| unknown(Kind::Busy, result)),
        (|| Reply::Refuse(500, "InternalError"), |result| unknown(Kind::Busy, result)),
        (|| Reply::Refuse(503, "SlowDown"), |result| unknown(Kind::Busy, result)),
        (|| Reply::Refuse(502, ""), |result| unknown(Kind::Busy, result)),
        (|| Reply::HangUp, |result| unknown(Kind::Unreachable, result)),
        (|| Reply::ServeAndHangUp, |result| unknown(Kind::Unreachable, result)),
        (|| Reply::Stall, |result| unknown(Kind::Unreachable, result)),
        (|| Reply::Refuse(403, "AccessDenied"), |result| failed(Kind::Denied, result)),
        (|| Reply::Refuse(403, "RequestTimeTooSkewed"), |result| failed(Kind::Clock, result)),
        (|| Reply::Refuse(400, "ExpiredToken"), |result| failed(Kind::Credentials, result)),
        (|| Reply::Refuse(404, "NoSuchBucket"), |result| failed(Kind::NoPlace, result)),
        (|| Reply::Refuse(501, "NotImplemented"), |result| failed(Kind::Other, result)),
        (|| Reply::Refuse(400, "InvalidRequest"), |result| failed(Kind::Other, result)),
    ];
    for (number, (reply, expected)) in cases.into_iter().enumerate() {
        let script = move |request: &Request| if request.method == "PUT" { reply() } else { Reply::Serve };
        let (fake, store) = if matches!(reply(), Reply::Stall) { hurried(script) } else { on(script) };
        let created = block_on(store.create("commits/1", b"x"));
        assert!(expected(&created), "case {number}: {created:?}");
        let puts = fake.requests().into_iter().filter(|request| request.method == "PUT");
        let conditions: Vec<_> = puts.map(|request| request.headers["if-none-match"].clone()).collect();
        assert_eq!(conditions, ["*"], "case {number}");
    }
}

#[test]
fn what_was_created_without_an_answer_is_there() {
    let (_fake, store) = on(|request| match request.method.as_str() {
        "PUT" => Reply::ServeAndHangUp,
        _ => Reply::Serve,
    });
    assert!(matches!(block_on(store.create("commits/1", b"mine")), Ok(Created::Unknown(_))));
    assert_eq!(get(&store, "commits/1").unwrap(), b"mine");
}

#[test]
fn only_a_missing_key_is_absence() {
    for (status, code, kind) in [
        (403, "AccessDenied", Kind::Denied),
        (403, "", Kind::Denied),
        (404, "NoSuchBucket", Kind::NoPlace),
        (404, "", Kind::Other),
        (403, "RequestTimeTooSkewed", Kind::Clock),
        (403, "InvalidAccessKeyId", Kind::Credentials),
        (301, "PermanentRedirect", Kind::Other),
        (507, "StorageFull", Kind::Full),
    ] {
        let (_fake, store) = on(move |_| Reply::Refuse(status, code));
        let error = block_on(store.get("gen/x", 10, &mut Vec::new())).unwrap_err();
        assert_eq!(error.kind, kind, "get {status} {code}: {error:?}");
        let error = block_on(store.size("gen/x")).unwrap_err();
        assert_eq!(error.kind, kind, "size {status} {code}: {error:?}");
    }
    let (_fake, store) = on(|_| Reply::Serve);
    assert_eq!(get(&store, "gen/x"), None);
    assert_eq!(block_on(store.size("gen/x")).unwrap(), None);
}

#[test]
fn trouble_that_passes_is_waited_for() {
    let (_fake, store) = on(|request| match request.number % 2 {
        0 => Reply::Refuse(503, "SlowDown"),
        _ => Reply::Serve,
    });
    put(&store, "gen/x", b"x").unwrap();
    assert_eq!(get(&store, "gen/x").unwrap(), b"x");
    let (_fake, store) = on(|_| Reply::Refuse(503, "SlowDown"));
    all_are(Kind::Busy, &store);
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let bytes = Noise::bytes(4, 300_000);
    let (fake, store) = on(|request| match (request.method.as_str(), request.key.as_str()) {
        ("GET", "gen/x") => Reply::ServePart(100_000.min(300_000 - from(request))),
        _ => Reply::Serve,
    });
    put(&store, "gen/x", &bytes).unwrap();
    let before = fake.log().len();
    assert!(get(&store, "gen/x").unwrap() == bytes);
    let requests = fake.requests();
    let ranges: Vec<_> =
        requests[before..].iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_owned()), Some("bytes=200000-".to_owned())]);
    assert!(requests[before + 1..].iter().all(|request| request.headers["if-match"] == "\"tag\""));
}

fn from(request: &Request) -> usize {
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    range.and_then(|range| range.trim_end_matches('-').parse().ok()).unwrap_or(0)
}

#[test]
fn a_download_that_always_breaks_off_ends() {
    let (_fake, store) = on(|request| match (request.method.as_str(), request.key.as_str()) {
        ("GET", "gen/x") => Reply::ServePart(0),
        _ => Reply::Serve,
    });
    put(&store, "gen/x", b"some bytes").unwrap();
    let error = block_on(store.get("gen/x", 100, &mut Vec::new())).unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
}

#[test]
fn a_list_without_end() {
    // The first page is whoever's who looks whether the bucket is there.
    let tokens: [fn(usize) -> usize; 3] = [|_| 7, |number| number % 2, |number| number];
    for next in tokens {
        let (fake, store) = on(move |request| match request.query.contains("list-type") {
            true => Reply::Say(format!(
                "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>\
                <Contents><Key>gen/x</Key></Contents></ListBucketResult>",
                next(request.number)
            )),
            false => Reply::Serve,
        });
        let error = block_on(store.list("gen/", "")).unwrap_err();
        assert!(error.to_string().contains("or without end"), "{error:?}");
        assert!(fake.log().len() <= 3, "{:?}", fake.log());
    }
}

#[test]
fn an_answer_without_end() {
    let (_fake, store) = on(|request| match request.query.contains("list-type") {
        true => Reply::Endless(200),
        false => Reply::Endless(500),
    });
    let error = block_on(store.list("gen/", "")).unwrap_err();
    assert!(format!("{error:?}").contains("it has no end"), "{error:?}");
    assert_eq!(block_on(store.get("gen/x", 10, &mut Vec::new())).unwrap_err().kind, Kind::Busy);
    // What is an object ends where it is longer than it should be.
    let (_fake, store) = on(|request| match request.key.as_str() {
        "gen/x" => Reply::Endless(200),
        _ => Reply::Serve,
    });
    let error = block_on(store.get("gen/x", 40 << 20, &mut Vec::new())).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error:?}");
}

#[test]
fn what_set_up_could_not_do_or_see_is_no_lack_of_the_servers() {
    let look = |request: &Request| request.method == "GET" && request.query.contains("versioning");
    type Script = Box<dyn Fn(&Request) -> Reply + Send + Sync>;
    let refuses: Script =
        Box::new(|request| match request.method == "PUT" && request.query.contains("versioning") {
            true => Reply::Refuse(409, "OperationAborted"),
            false => Reply::Serve,
        });
    let unseen: Script = Box::new(move |request| match look(request) {
        true if request.number > 1 => Reply::Refuse(403, "AccessDenied"),
        _ => Reply::Serve,
    });
    let bucket: Script =
        Box::new(|request| match request.method == "PUT" && request.query.contains("versioning") {
            true => Reply::Refuse(409, "BucketAlreadyOwnedByYou"),
            false => Reply::Serve,
        });
    for (script, fails) in [(refuses, true), (unseen, true), (bucket, false)] {
        let (fake, store) = on(script);
        let steps = block_on(store.setup()).unwrap();
        let step = steps.iter().find(|step| step.what.contains("version")).unwrap();
        assert_eq!(matches!(step.outcome, Outcome::Failed(_)), fails, "{:?} {:?}", step.outcome, fake.log());
        assert!(fails || matches!(step.outcome, Outcome::NotSupported), "{:?}", step.outcome);
    }
}

#[test]
fn a_store_that_lies_is_read_back() {
    let lies = |request: &Request| match request.body.is_empty() {
        true => Reply::Serve,
        false => Reply::Corrupt,
    };
    let (_fake, store) = on(lies);
    for size in [10, 9 * MIB] {
        let bytes = Noise::bytes(5, size);
        // The size is right, and the checksum was not looked at: nothing shows.
        put(&store, "gen/x", &bytes).unwrap();
    }
    let found = block_on(store.probe()).unwrap();
    assert!(!found.checksums);
    assert_eq!(found.shortcomings().len(), 2, "{found:?}");
    for size in [10, 9 * MIB] {
        let error = put(&store, "gen/x", &Noise::bytes(5, size)).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{error:?}");
    }
    // The next run is told.
    let fake = Fake::start(lies);
    let store = open(&fake.address, Access { read_back: true, ..access() });
    assert_eq!(put(&store, "gen/x", b"some bytes").unwrap_err().kind, Kind::Corrupt);
}

#[test]
fn a_store_that_loses_what_it_accepted() {
    let (fake, store) = on(|request| match request.method.as_str() {
        "HEAD" => Reply::Refuse(404, ""),
        "GET" if request.key == "gen/x" => Reply::Refuse(404, "NoSuchKey"),
        _ => Reply::Serve,
    });
    assert_eq!(put(&store, "gen/x", b"x").unwrap_err().kind, Kind::Corrupt);
    assert!(fake.object("gen/x").is_some());
}

#[test]
fn checksums_are_sent_and_bodies_have_a_length() {
    let (fake, store) = on(|_| Reply::Serve);
    put(&store, "gen/small", b"x").unwrap();
    put(&store, "gen/large", &Noise::bytes(6, 17 * MIB)).unwrap();
    assert!(matches!(block_on(store.create("commits/1", b"x")), Ok(Created::Made)));
    let puts: Vec<_> = fake.requests().into_iter().filter(|request| request.method == "PUT").collect();
    assert_eq!(puts.len(), 1 + 3 + 1);
    for request in puts {
        assert_eq!(request.headers["content-md5"].len(), 24);
        // Of a part's payload nothing else is signed.
        let signed = request.headers["authorization"].split("SignedHeaders=").nth(1).unwrap();
        let mut signed = signed.split(',').next().unwrap().split(';');
        assert!(signed.any(|name| name == "content-md5"), "{:?}", request.headers);
        assert!(
            !request.headers.keys().any(|name| name.starts_with("x-amz-trailer")),
            "{:?}",
            request.headers
        );
        assert_eq!(request.headers["content-length"], request.body.len().to_string());
    }
}

#[test]
fn an_upload_whose_completion_got_no_answer() {
    let bytes = Noise::bytes(7, 9 * MIB);
    let (fake, store) = on(|request| match request.method == "POST" && request.query.contains("uploadId") {
        true => Reply::ServeAndHangUp,
        false => Reply::Serve,
    });
    put(&store, "gen/x", &bytes).unwrap();
    assert!(fake.object("gen/x").unwrap() == bytes);
    // And one that was lost with its answer.
    let (fake, store) = on(|request| match request.method == "POST" && request.query.contains("uploadId") {
        true => Reply::HangUp,
        false => Reply::Serve,
    });
    assert_eq!(put(&store, "gen/x", &bytes).unwrap_err().kind, Kind::Unreachable);
    assert_eq!((fake.object("gen/x"), fake.unfinished()), (None, 0));
}

#[test]
fn three_parts_are_under_way_at_once() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let (_fake, store) = on(|request| {
        if request.query.contains("partNumber") {
            MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Those at once meet here, and a fourth would have the time to come.
            let started = Instant::now();
            while MOST.load(Ordering::SeqCst) < 3 && started.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(10));
            }
            std::thread::sleep(Duration::from_millis(200));
            NOW.fetch_sub(1, Ordering::SeqCst);
        }
        Reply::Serve
    });
    put(&store, "gen/x", &Noise::bytes(8, 40 * MIB)).unwrap();
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
}

#[test]
fn whoever_may_not_list_may_write() {
    let (_fake, store) = on(|request| match request.query.contains("list-type") {
        true => Reply::Refuse(403, "AccessDenied"),
        false => Reply::Serve,
    });
    put(&store, "gen/x", b"x").unwrap();
    assert!(matches!(block_on(store.create("commits/1", b"x")), Ok(Created::Made)));
}

#[test]
fn whoever_may_not_delete_can_probe() {
    let (_fake, store) = on(|request| match request.method.as_str() {
        "DELETE" => Reply::Refuse(403, "AccessDenied"),
        "PUT" if request.key.ends_with("/sum") => Reply::Refuse(400, "BadDigest"),
        _ => Reply::Serve,
    });
    let found = block_on(store.probe()).unwrap();
    assert!(found.conditional_create && found.checksums && !found.may_delete, "{found:?}");
    assert!(found.shortcomings().is_empty());
}
