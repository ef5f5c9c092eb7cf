use crate::context::Context;
use crate::error::Result;
use crate::pod::vault::Vault;

/// Print the recovery card: what to know on a fresh machine, besides the passphrase and a login. No secret is on it.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Prints it.
    pub async fn run(self, context: &Context) -> Result<()> {
        let vault = Vault::open(context).await?;
        let head = vault.head()?;
        let settings = &vault.settings;
        let mut place = vec![("address", Some(settings.address.clone()))];
        place.push(("endpoint", settings.endpoint.clone()));
        place.push(("region", settings.region.clone()));
        place.push(("profile", settings.profile.clone()));
        let place: Vec<String> = place
            .into_iter()
            .filter_map(|(name, value)| Some(format!("    {name} = \"{}\"", value?)))
            .collect();
        context.ui.data(format!(
            "tazpod recovery card\n\n\
             vault        {}\n\
             fingerprint  {}\n\
             commit       {} of {}\n\n\
             On a fresh machine, in ~/.config/tazpod/config.toml:\n\n    [vault]\n{}\n\n\
             log in to the store, and then:\n\n    \
             tazpod vault pull --card {}\n    tazpod up\n    tazpod vault unlock\n\n\
             The passphrase is not on this card.",
            head.body.vault,
            head.fingerprint(),
            head.body.n,
            head.body.time,
            place.join("\n"),
            head.fingerprint(),
        ))
    }
}
