use crate::adapters::store::Login;
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
        let login = vault.login().await.unwrap_or_else(|failed| {
            context.ui.warn(format!("the card does not have how to log in: {failed}"));
            Login::default()
        });
        let quoted = |value: &Option<String>| value.as_ref().map(|value| format!("\"{value}\""));
        let flag = |value: Option<bool>| value.map(|value| value.to_string());
        let place = [
            ("address", quoted(&Some(settings.address.clone()))),
            ("endpoint", quoted(&settings.endpoint)),
            ("region", quoted(&settings.region)),
            ("profile", quoted(settings.profile.as_ref().map_or(&login.profile, |_| &settings.profile))),
            ("path_style", flag(settings.path_style)),
            ("accept_overwrites", flag(settings.accept_overwrites)),
        ];
        let place = place.into_iter().filter_map(|(name, value)| Some(format!("{name} = {}", value?)));
        let place: Vec<String> = std::iter::once("[vault]".to_owned()).chain(place).collect();
        let aws = match login.lines.as_slice() {
            [] => String::new(),
            lines => format!("in ~/.aws/config:\n\n{}\n\n", indented(lines)),
        };
        let by = match login.sso.as_deref() {
            Some("default") => " (`aws sso login`)".to_owned(),
            Some(profile) => format!(" (`aws sso login --profile {profile}`)"),
            None => String::new(),
        };
        context.ui.data(format!(
            "tazpod recovery card\n\n\
             vault        {}\n\
             fingerprint  {}\n\
             commit       {} of {}\n\n\
             On a fresh machine, in ~/.config/tazpod/config.toml:\n\n{}\n\n\
             {aws}log in to the store{by}, and then:\n\n    \
             tazpod vault pull --card {}\n    tazpod up\n    tazpod vault unlock\n\n\
             The passphrase is not on this card.",
            head.body.vault,
            head.fingerprint(),
            head.body.n,
            head.body.time,
            indented(&place),
            head.fingerprint(),
        ))
    }
}

fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
