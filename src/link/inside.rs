//! The way to the keeper of the pod that this program itself runs in.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::{VAULT_TIMEOUT, answer_of, exchange, request_line};
use crate::agent::vault::{Answer, Request, SOCKET};
use crate::error::{Error, Kind, Result};
use crate::pod::spec::{RUN, VAULT_MEMORY};

/// Where programs of this pod reach its keeper; `None` outside a pod.
pub fn socket() -> Option<PathBuf> {
    let path = Path::new(VAULT_MEMORY).join(SOCKET);
    let found = fs::symlink_metadata(&path).ok()?;
    let user = rustix::process::geteuid().as_raw();
    // Elsewhere than in a pod another user may have made something of that name; the run directory only root can make.
    let ours = found.file_type().is_socket() && (found.uid() == user || user == 0) && Path::new(RUN).is_dir();
    ours.then_some(path)
}

/// Asks it; what `packed` gives follows the request.
///
/// # Errors
/// What the keeper refused; where it does not answer, or not in time.
pub async fn ask(socket: &Path, request: &Request, packed: Option<&mut (dyn Read + Send)>) -> Result<Answer> {
    let failed = |source| Error::io("ask the vault's keeper at", socket, source);
    let line = request_line(request)?;
    let stream = UnixStream::connect(socket).await.map_err(failed)?;
    let (mut reader, mut writer) = stream.into_split();
    writer.write_all(&line).await.map_err(failed)?;
    let reading = async {
        let mut answer = Vec::new();
        match tokio::time::timeout(VAULT_TIMEOUT, reader.read_to_end(&mut answer)).await {
            // One that did not take everything ends the connection hard, after its answer.
            Ok(Err(source)) if answer.is_empty() => Err(failed(source)),
            Ok(_) => Ok(answer),
            Err(_) => Err(Error::new(Kind::Failure, "the vault's keeper did not answer in time")),
        }
    };
    answer_of(&exchange(writer, reading, packed).await?)
}
