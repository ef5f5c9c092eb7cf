//! `tazpod agent mount`: what the helper container runs.

use crate::adapters::idmap::{Failure, ShareArgument, mount_as_helper};
use crate::context::Context;
use crate::error::Result;
use crate::pod::ownership::Ids;

/// Mount directories of the host in the pod whose pid namespace this container joined.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The caller's user id.
    #[arg(long)]
    uid: u32,
    /// The caller's group id.
    #[arg(long)]
    gid: u32,
    /// `SOURCE=TARGET=NAME`, each percent-encoded.
    #[arg(required = true, value_name = "SHARE")]
    shares: Vec<ShareArgument>,
}

impl Args {
    /// Runs; a failure is JSON on stdout, for the tazpod that started this one.
    ///
    /// # Errors
    /// Where stdout cannot be written.
    pub fn run(self, context: &Context) -> Result<u8> {
        let Err(error) = mount_as_helper(&self.shares, Ids { uid: self.uid, gid: self.gid }) else {
            return Ok(0);
        };
        context.ui.json(&Failure::from(&error))?;
        Ok(error.exit_code())
    }
}
