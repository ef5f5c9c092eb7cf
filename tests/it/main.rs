//! The product as its users have it: the binary, real engines, a real terminal. `scripts/test` runs these.
#![allow(unsafe_code, missing_docs)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod builds;
mod catalog;
mod errors;
mod lifecycle;
mod ownership;
mod registry;
mod rig;
#[allow(dead_code, reason = "the stores' own suite uses the rest of it")]
#[path = "../store/servers.rs"]
mod servers;
mod services;
mod session;
mod ssh;
mod terminal;
mod vault;

use std::sync::atomic::{AtomicU32, Ordering};

use tazpod::adapters::store::{Access, StoreConfig, StoreSettings, open};

/// A bucket of its own, and the address of its server.
fn bucket() -> (String, &'static str) {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let (name, server) = (format!("tazpod-it-{}-{number}", std::process::id()), servers::seaweedfs());
    make(&name, server).unwrap();
    (name, server)
}

/// Whether the server at a port of this machine is ready.
fn ready(port: u16) -> bool {
    make("tazpod-ready", &format!("http://127.0.0.1:{port}")).is_ok()
}

fn make(bucket: &str, endpoint: &str) -> Result<(), tazpod::vault::store::StoreError> {
    let settings = StoreSettings {
        address: format!("s3://{bucket}"),
        endpoint: Some(endpoint.to_owned()),
        ..StoreSettings::default()
    };
    let config = StoreConfig::new(&settings).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let access = Access { keys: Some(servers::keys()), ..Access::default() };
        open(&config, access).await.setup().await.map(drop)
    })
}
