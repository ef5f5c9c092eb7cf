use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::adapters::engine::{Endpoint, Engine};
use crate::adapters::terminal::{self, Output};
use crate::context::Context;
use crate::error::{Context as _, Kind, Result};
use crate::link::LinkStream;
use crate::pod::target::PodArgs;

/// Carry an SSH client's bytes to a pod: its `ProxyCommand`.
///
/// `tazpod ssh-config` prints what OpenSSH, scp, rsync and editors need to use it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
}

impl Args {
    /// Copies until either end is done.
    pub async fn run(self, context: &Context) -> Result<()> {
        let (pod, record) = self.pod.find(&context.state()?)?;
        let stream =
            LinkStream::open(&pod, &record, || Engine::new(Endpoint::parse(&record.engine)?)).await?;
        let (mut reading, mut writing) = tokio::io::split(stream);
        let stdout = Output::new(io::stdout());
        let mut stdin = terminal::stdin();
        let upward = async {
            while let Some(data) = stdin.recv().await {
                writing.write_all(&data).await?;
                writing.flush().await?;
            }
            // The agent ends its side; whatever it still says is carried.
            writing.shutdown().await
        };
        let downward = async {
            let mut buffer = bytes::BytesMut::new();
            loop {
                buffer.reserve(64 * 1024);
                if reading.read_buf(&mut buffer).await? == 0 || !stdout.write(buffer.split().freeze()).await {
                    return Ok::<_, io::Error>(());
                }
            }
        };
        let copied = {
            tokio::pin!(upward, downward);
            tokio::select! {
                result = &mut downward => result,
                result = &mut upward => match result {
                    Ok(()) => downward.await,
                    Err(error) => Err(error),
                },
            }
        };
        // The client may have gone first, as SSH clients do.
        let _ = stdout.finish(Duration::MAX).await;
        copied.context(Kind::Failure, || format!("the connection to `{}` is lost", pod.name()))
    }
}
