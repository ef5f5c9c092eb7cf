/// TBD
#[derive(Debug, clap::Args)]
pub struct Args {}
impl Args {
    /// Runs.
    pub fn run(self, _context: &crate::context::Context) -> crate::error::Result<()> {
        Ok(())
    }
}
