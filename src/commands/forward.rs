use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::attach;
use crate::agent::control::{Address, Answer, Request};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::link::Link;
use crate::pod::target::PodArgs;

/// How long a service may take to listen, which may just have been started.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked, and how often the link is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Bring ports of a pod to this machine, until Ctrl-C.
///
/// Without `--port`, those of the pod's services. Only this machine reaches them, at 127.0.0.1; addresses are printed, with the token
/// where a service asks for one.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pod: PodArgs,
    /// A port of the pod, at a port of this machine: the same if left out, or another where that is taken.
    #[arg(short, long = "port", value_name = "[LOCAL:]PORT")]
    ports: Vec<Ports>,
    /// The addresses as JSON.
    #[arg(long)]
    json: bool,
}

/// A port of the pod, and where it is to appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    local: Option<u16>,
    pod: u16,
}

/// What `--json` prints, once all ports are there.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    ports: Vec<Forwarded>,
}

#[derive(Debug, Serialize)]
struct Forwarded {
    /// The service that listens there.
    service: Option<String>,
    port: u16,
    local: SocketAddr,
    url: Option<String>,
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Ports, String> {
        let port = |text: &str| match text.parse() {
            Ok(0) | Err(_) => Err(format!("`{text}` is no port; a port is a number from 1 to 65535")),
            Ok(port) => Ok(port),
        };
        Ok(match text.split_once(':') {
            Some((local, pod)) => Ports { local: Some(port(local)?), pod: port(pod)? },
            None => Ports { local: None, pod: port(text)? },
        })
    }
}

impl Args {
    /// Forwards until it is interrupted, or the pod has gone.
    pub async fn run(self, context: &Context) -> Result<()> {
        let (pod, record) = self.pod.find(&context.state()?)?;
        let link = Arc::new(attach::open(&pod, &record).await?);
        let services = match link.control(&Request::Services).await? {
            Answer::Services { services } => services,
            // The agent of an earlier version.
            _ => Vec::new(),
        };
        let mut wanted = self.ports;
        if wanted.is_empty() {
            wanted = services.iter().map(|service| Ports { local: None, pod: service.port }).collect();
        }
        if wanted.is_empty() {
            return Err(Error::new(Kind::Usage, format!("no service of `{}` has a port", pod.name()))
                .hint("name a port of the pod: `--port 8080`"));
        }
        let mut listeners = Vec::new();
        for ports in wanted {
            let service = services.iter().find(|service| service.port == ports.pod);
            let (listener, local) = listen(ports).await?;
            if service.is_some() {
                wait_for(context, &link, ports.pod, local).await?;
            }
            listeners.push((listener, forwarded(service, ports.pod, local)));
        }
        let (listeners, ports): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
        let numbers: Vec<u16> = ports.iter().map(|port| port.port).collect();
        match self.json {
            true => context.ui.json(&Report { version: 1, ports })?,
            false => print(context, &ports)?,
        }
        let mut serving: JoinSet<()> = listeners
            .into_iter()
            .zip(numbers)
            .map(|(listener, port)| serve(listener, port, Arc::clone(&link)))
            .collect();
        loop {
            tokio::select! {
                _ = serving.join_next() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            if link.is_closed() {
                return Err(Error::new(Kind::Failure, "the connection to the pod is lost")
                    .hint("`tazpod status` shows whether it still runs"));
            }
        }
    }
}

async fn listen(ports: Ports) -> Result<(TcpListener, SocketAddr)> {
    let bind = async |port| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, address))
    };
    let port = ports.local.unwrap_or(ports.pod);
    match bind(port).await {
        // Taken, or below 1024.
        Err(_) if ports.local.is_none() => bind(0).await,
        bound => bound,
    }
    .map_err(|source| {
        let error = Error::new(Kind::Failure, format!("cannot listen at port {port} of this machine"));
        let hint = match source.kind() {
            ErrorKind::AddrInUse => "another program has it; name another: `--port LOCAL:PORT`",
            _ => "ports below 1024 are the administrator's; name another: `--port LOCAL:PORT`",
        };
        error.with_source(source).hint(hint)
    })
}

/// A browser would show the refusal, and not ask again.
async fn wait_for(context: &Context, link: &Link, port: u16, local: SocketAddr) -> Result<()> {
    let step = context.ui.step(format!("waiting for port {port} of the pod"));
    let listening = async {
        while let Err(error) = link.forward(port, local).await {
            if link.is_closed() {
                return Err(error);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    };
    let waited = tokio::time::timeout(PATIENCE, listening).await;
    drop(step);
    match waited {
        Ok(result) => result,
        Err(_) => {
            context.ui.warn(format!("nobody listens at port {port} of the pod yet"));
            context.ui.hint("`tazpod status` shows its services, `tazpod logs` what they wrote");
            Ok(())
        }
    }
}

fn forwarded(service: Option<&Address>, port: u16, local: SocketAddr) -> Forwarded {
    let url = service.and_then(|service| service.url.as_ref());
    Forwarded {
        service: service.map(|service| service.name.clone()),
        port,
        local,
        url: url.map(|url| url.replace("{port}", &local.port().to_string())),
    }
}

fn print(context: &Context, ports: &[Forwarded]) -> Result<()> {
    let line = |port: &Forwarded| {
        let address = port.url.clone().unwrap_or_else(|| port.local.to_string());
        match &port.service {
            Some(service) => format!("{service}: {address}"),
            None => format!("port {}: {address}", port.port),
        }
    };
    context.ui.data(ports.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    context.ui.status("Ctrl-C ends it");
    Ok(())
}

async fn serve(listener: TcpListener, port: u16, link: Arc<Link>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, peer)) => drop(connections.spawn(carry(connection, peer, port, Arc::clone(&link)))),
                // Out of descriptors, or a peer that left already.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How it ends is for the two to know whose connection it is: it is closed.
async fn carry(mut connection: TcpStream, peer: SocketAddr, port: u16, link: Arc<Link>) {
    if let Ok(mut stream) = link.forward(port, peer).await {
        let _ = copy_bidirectional(&mut connection, &mut stream).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        assert_eq!("8080".parse(), Ok(Ports { local: None, pod: 8080 }));
        assert_eq!("9000:80".parse(), Ok(Ports { local: Some(9000), pod: 80 }));
        for wrong in ["", "0", "0:80", "80:", ":80", "65536", "a", "1:2:3"] {
            assert!(wrong.parse::<Ports>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_address_has_the_port_of_this_machine() {
        let url = Some("http://127.0.0.1:{port}/?token=t".to_owned());
        let service = Address { name: "lab".into(), port: 8888, url };
        let there = forwarded(Some(&service), 8888, (Ipv4Addr::LOCALHOST, 9).into());
        assert_eq!(there.url.as_deref(), Some("http://127.0.0.1:9/?token=t"));
        assert_eq!(forwarded(None, 80, there.local).url, None);
    }
}
