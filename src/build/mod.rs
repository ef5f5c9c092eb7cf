//! Images from the catalog: plan, context, build.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum PullPolicy { #[default] Missing, Never }
#[allow(missing_docs)]
pub async fn ensure(_c: &crate::context::Context, e: &crate::adapters::engine::Engine, v: &crate::catalog::Vertical, _p: PullPolicy) -> crate::error::Result<crate::adapters::engine::Image> { Ok(e.image(&v.reference()).await?.unwrap()) }
#[allow(missing_docs)]
pub async fn ensure_reference(_c: &crate::context::Context, e: &crate::adapters::engine::Engine, r: &str, _p: PullPolicy) -> crate::error::Result<crate::adapters::engine::Image> { Ok(e.image(r).await?.unwrap()) }
