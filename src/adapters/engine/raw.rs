//! Answers of the engine as plain JSON, where the client's types leave out what is needed.

use std::collections::HashMap;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Endpoint, unreachable_engine};
use crate::error::{Error, Kind, Result};

/// How long the engine may take to answer. Podman answers nothing while it stores a layer, which may be long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The most that an answer may be long.
const LIMIT: usize = 4 * 1024 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a list says of a container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// The full id.
    pub id: String,
    /// The first is its own, with a slash before it.
    pub names: Option<Vec<String>>,
    /// In a word.
    pub state: String,
    /// For people.
    pub status: String,
    /// As given at creation.
    pub image: String,
    /// All labels.
    pub labels: Option<HashMap<String, String>>,
}

/// GETs a path.
///
/// # Errors
/// [`Kind::Engine`] where the engine does not answer with JSON in time, or with another status than 2xx.
pub async fn get(endpoint: &Endpoint, path: &str) -> Result<Value> {
    match ask(endpoint, path, None).await? {
        (status, value) if status.is_success() => Ok(value),
        (status, _) => Err(unreachable_engine(endpoint).with_source(format!("`{path}` answered {status}"))),
    }
}

/// GETs a path, with one more header if there is one; what the engine answers, and its status.
///
/// # Errors
/// [`Kind::Engine`] where the engine does not answer with JSON in time.
pub async fn ask(
    endpoint: &Endpoint,
    path: &str,
    header: Option<(&str, &str)>,
) -> Result<(StatusCode, Value)> {
    let answer = async {
        match endpoint {
            Endpoint::Unix(socket) => request(UnixStream::connect(socket).await?, path, header).await,
            Endpoint::Http(address) => {
                let stream = TcpStream::connect(address.trim_start_matches("http://")).await?;
                request(stream, path, header).await
            }
        }
    };
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => {
            let denied = source
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
            if denied {
                return Err(super::no_permission(endpoint).with_source(source));
            }
            Err(unreachable_engine(endpoint).with_source(source))
        }
        Err(_) => Err(Error::new(Kind::Engine, format!("the engine at `{endpoint}` does not answer"))
            .hint(format!("waited {} s for `{path}`", TIMEOUT.as_secs()))),
    }
}

async fn request(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    header: Option<(&str, &str)>,
) -> Result<(StatusCode, Value), BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header("Host", "engine");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LIMIT).collect().await?.to_bytes();
    match serde_json::from_slice(&body) {
        Err(_) if !status.is_success() => Ok((status, Value::Null)),
        value => Ok((status, value?)),
    }
}
