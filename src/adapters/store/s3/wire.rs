//! The SDK's HTTP client, with a limit on silence: neither a dead connection nor a slow one is told by how long a
//! request takes, only by whether bytes move.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_sdk_s3::config::http::{HttpRequest, HttpResponse};
use aws_sdk_s3::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_sdk_s3::error::{BoxError, ConnectorError};
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// How much of a request is handed over at once. What the connection has taken counts as progress.
const PIECE: usize = 64 * 1024;
/// An answer that is no object is not longer, in bytes: the SDK holds it in memory. A page of a list has a few hundred thousand.
const LONGEST_ANSWER: u64 = 16 << 20;

/// A client that gives up where no byte moves for `silence`, either way.
pub(super) fn client(silence: Duration) -> SharedHttpClient {
    SharedHttpClient::new(Client { silence, watched: Mutex::default() })
}

/// What the SDK's connectors differ by.
type Settings = (Option<Duration>, Option<Duration>);

#[derive(Debug)]
struct Client {
    silence: Duration,
    /// Kept, because each has a pool of connections.
    watched: Mutex<HashMap<Settings, SharedHttpConnector>>,
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let key = (settings.connect_timeout(), settings.read_timeout());
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            SharedHttpConnector::new(Watched {
                silence: self.silence,
                settings: settings.clone(),
                roads: Mutex::default(),
            })
        };
        watched.entry(key).or_insert_with(make).clone()
    }
}

/// How a host is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Road {
    /// With TLS. Reading the system's certificates takes a while, and there may be none.
    encrypted: bool,
    /// This machine, or the metadata service of a virtual one: never through a proxy.
    near: bool,
}

impl Road {
    fn to(uri: &str) -> Road {
        let uri: Option<hyper::Uri> = uri.parse().ok();
        let host = uri.as_ref().and_then(hyper::Uri::host).unwrap_or_default();
        let near = match host.trim_matches(['[', ']']).parse() {
            Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local(),
            Err(_) => host == "localhost",
        };
        Road { encrypted: uri.as_ref().and_then(hyper::Uri::scheme_str) != Some("http"), near }
    }

    fn connector(self, settings: &HttpConnectorSettings) -> Result<SharedHttpConnector, BoxError> {
        let roots = TrustStore::empty().with_native_roots(self.encrypted);
        let connector = Connector::builder()
            .connector_settings(settings.clone())
            .proxy_config(if self.near { ProxyConfig::disabled() } else { ProxyConfig::from_env() })
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(TlsContext::builder().with_trust_store(roots).build()?)
            .build();
        Ok(SharedHttpConnector::new(connector))
    }
}

#[derive(Debug)]
struct Watched {
    silence: Duration,
    settings: HttpConnectorSettings,
    roads: Mutex<HashMap<Road, SharedHttpConnector>>,
}

impl Watched {
    fn road(&self, uri: &str) -> Result<SharedHttpConnector, BoxError> {
        let road = Road::to(uri);
        let mut roads = self.roads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = roads.get(&road) {
            return Ok(connector.clone());
        }
        let connector = road.connector(&self.settings)?;
        roads.insert(road, connector.clone());
        Ok(connector)
    }
}

impl HttpConnector for Watched {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let connector = match self.road(request.uri()) {
            Ok(connector) => connector,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error))),
        };
        let silence = self.silence;
        let is_object = request.uri().contains("x-id=GetObject");
        let progress = Progress::new();
        let sent = Sent { body: request.take_body(), rest: Bytes::new(), progress: progress.clone() };
        *request.body_mut() = SdkBody::from_body_1_x(sent);
        let mut answer = Box::pin(connector.call(request));
        HttpConnectorFuture::new(async move {
            let mut quiet = Quiet::new(silence);
            let mut seen = 0;
            loop {
                match tokio::time::timeout(quiet.tick, answer.as_mut()).await {
                    Ok(answer) => {
                        return answer.map(|response| {
                            let limited = !is_object || !response.status().is_success();
                            listen(response, silence, if limited { LONGEST_ANSWER } else { u64::MAX })
                        });
                    }
                    Err(_) => {
                        let (pieces, patience) = progress.look();
                        if pieces != seen {
                            seen = pieces;
                            quiet.broken();
                        }
                        quiet.goes_on(patience).map_err(|silent| ConnectorError::timeout(silent.into()))?;
                    }
                }
            }
        })
    }
}

/// Counts how long there was silence. In ticks, not by the clock: where this process was held up, what came meanwhile
/// is there, and has not been looked at yet.
struct Quiet {
    silence: Duration,
    tick: Duration,
    counted: Duration,
}

impl Quiet {
    fn new(silence: Duration) -> Quiet {
        Quiet { silence, tick: silence / 8, counted: Duration::ZERO }
    }

    /// Something moved.
    fn broken(&mut self) {
        self.counted = Duration::ZERO;
    }

    /// Nothing moved for another tick; fails where that was too long.
    fn goes_on(&mut self, patience: Duration) -> Result<(), Silent> {
        self.counted += self.tick;
        if self.counted < self.silence + patience { Ok(()) } else { Err(Silent(self.silence)) }
    }
}

fn listen(response: HttpResponse, silence: Duration, limit: u64) -> HttpResponse {
    response.map(|body| {
        let quiet = Quiet::new(silence);
        let alarm = Box::pin(tokio::time::sleep(quiet.tick));
        SdkBody::from_body_1_x(Heard { body, left: limit, quiet, alarm })
    })
}

/// How far a request has been taken by its connection.
#[derive(Clone)]
struct Progress(Arc<Mutex<Taken>>);

struct Taken {
    begun: Instant,
    pieces: u64,
    /// How long the whole body took.
    complete: Option<Duration>,
}

impl Progress {
    fn new() -> Progress {
        Progress(Arc::new(Mutex::new(Taken { begun: Instant::now(), pieces: 0, complete: None })))
    }

    fn taken(&self, complete: bool) {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.pieces += 1;
        if complete && taken.complete.is_none() {
            taken.complete = Some(taken.begun.elapsed());
        }
    }

    /// How many pieces were taken, and how much longer than usual the answer may take: what was taken last may still be
    /// in the kernel's buffers, which a line empties at the speed that it has shown so far.
    fn look(&self) -> (u64, Duration) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.pieces, taken.complete.unwrap_or_default())
    }
}

/// A request's body, in pieces, that tells when each was taken.
struct Sent {
    body: SdkBody,
    rest: Bytes,
    progress: Progress,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.progress.taken(true);
                    return Poll::Ready(None);
                }
            }
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        let complete = self.is_end_stream();
        self.progress.taken(complete);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let body = Body::size_hint(&self.body);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// A response's body that fails where it is silent for too long, or longer than it may be.
struct Heard {
    body: SdkBody,
    /// In bytes.
    left: u64,
    quiet: Quiet,
    alarm: Pin<Box<Sleep>>,
}

impl Body for Heard {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            self.quiet.broken();
            let next = Instant::now() + self.quiet.tick;
            self.alarm.as_mut().reset(next);
            let length =
                frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
            return match self.left.checked_sub(length as u64) {
                Some(left) => {
                    self.left = left;
                    Poll::Ready(frame)
                }
                None => Poll::Ready(Some(Err("it has no end".into()))),
            };
        }
        loop {
            ready!(self.alarm.as_mut().poll(context));
            if let Err(silent) = self.quiet.goes_on(Duration::ZERO) {
                return Poll::Ready(Some(Err(silent.into())));
            }
            let next = Instant::now() + self.quiet.tick;
            self.alarm.as_mut().reset(next);
        }
    }

    fn is_end_stream(&self) -> bool {
        Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.body)
    }
}

/// No byte moved for this long.
#[derive(Debug)]
pub(super) struct Silent(Duration);

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing was heard for {} s", self.0.as_secs_f32())
    }
}

impl std::error::Error for Silent {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roads() {
        let road = |uri| Road::to(uri);
        assert_eq!(road("http://127.0.0.1:9000/x"), Road { encrypted: false, near: true });
        assert_eq!(road("http://[::1]:9000/x"), Road { encrypted: false, near: true });
        assert_eq!(road("http://169.254.169.254/latest"), Road { encrypted: false, near: true });
        assert_eq!(road("http://localhost/x"), Road { encrypted: false, near: true });
        assert_eq!(road("https://b.s3.amazonaws.com/x"), Road { encrypted: true, near: false });
        assert_eq!(road("http://minio.example:9000/x"), Road { encrypted: false, near: false });
    }

    #[tokio::test]
    async fn a_body_goes_out_in_pieces_and_tells_it() {
        let progress = Progress::new();
        let body = SdkBody::from(vec![7; PIECE * 2 + 1]);
        let mut sent = Sent { body, rest: Bytes::new(), progress: progress.clone() };
        assert_eq!(sent.size_hint().exact(), Some(PIECE as u64 * 2 + 1));
        let mut lengths = Vec::new();
        while progress.0.lock().unwrap().complete.is_none() {
            let frame = std::future::poll_fn(|context| Pin::new(&mut sent).poll_frame(context)).await;
            lengths.extend(frame.map(|frame| frame.unwrap().into_data().unwrap().len()));
        }
        assert_eq!(lengths, [PIECE, PIECE, 1]);
    }

    #[test]
    fn silence_is_counted_until_something_moves() {
        let mut quiet = Quiet::new(Duration::from_secs(8));
        let ticks = |quiet: &mut Quiet, patience| {
            (1..).find(|_| quiet.goes_on(Duration::from_secs(patience)).is_err()).unwrap()
        };
        assert_eq!(ticks(&mut quiet, 0), 8);
        // Where the sending took five seconds, the answer may take five more.
        quiet.broken();
        assert_eq!(ticks(&mut quiet, 5), 13);
    }

    #[test]
    fn the_answer_may_take_as_long_as_the_sending_did() {
        let progress = Progress::new();
        progress.taken(false);
        assert_eq!(progress.look(), (1, Duration::ZERO));
        progress.0.lock().unwrap().begun -= Duration::from_secs(100);
        progress.taken(true);
        let (pieces, patience) = progress.look();
        assert!(pieces == 2 && (100..110).contains(&patience.as_secs()), "{pieces} {patience:?}");
    }
}
