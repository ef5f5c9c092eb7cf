/// TBD
#[derive(Debug, clap::Args)]
pub struct Args {}
impl Args {
    /// Runs.
    pub async fn run(self, _context: &crate::context::Context) -> crate::error::Result<()> {
        Ok(Default::default())
    }
}
