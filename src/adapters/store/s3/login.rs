//! What a login takes besides its secrets, from AWS's own configuration files.

use std::collections::BTreeSet;

use aws_config::profile::{ProfileSet, load};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_types::os_shim_internal::{Env, Fs};

use super::super::config::S3Config;
use crate::error::{Error, Kind, Result};

/// What may be shown of a profile; all else is not, as it may be a secret or lead to one.
const PROFILE: [&str; 8] = [
    "sso_session",
    "sso_start_url",
    "sso_region",
    "sso_account_id",
    "sso_role_name",
    "region",
    "role_arn",
    "source_profile",
];
const SESSION: [&str; 3] = ["sso_start_url", "sso_region", "sso_registration_scopes"];
/// What else leads to credentials, in words.
const SECRET: [(&str, &str); 2] =
    [("aws_access_key_id", "an access key"), ("credential_process", "a program that gives credentials")];

/// How somebody logs in to a bucket.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The profile, unless it is the default one.
    pub profile: Option<String>,
    /// The lines of `~/.aws/config` that a fresh machine needs, without secrets.
    pub lines: Vec<String>,
    /// The profile that `aws sso login` is for.
    pub sso: Option<String>,
}

/// What this machine's files say of a bucket's profile.
///
/// # Errors
/// [`Kind::Config`] where they cannot be read.
pub async fn login(config: &S3Config) -> Result<Login> {
    let name = config.profile.clone().map(Into::into);
    let profiles = load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), name).await;
    let unreadable =
        |source| Error::new(Kind::Config, "cannot read AWS's configuration files").with_source(source);
    profiles.map(|profiles| of(&profiles)).map_err(unreadable)
}

fn of(profiles: &ProfileSet) -> Login {
    let selected = profiles.selected_profile();
    let named = profiles.get_profile(selected).filter(|profile| profile.name() != "default");
    let mut login = Login { profile: named.map(|profile| profile.name().to_owned()), ..Login::default() };
    let (mut next, mut seen, mut sessions) = (Some(selected), BTreeSet::new(), BTreeSet::new());
    while let Some(name) = next.filter(|name| seen.insert(*name))
        && let Some(profile) = profiles.get_profile(name)
    {
        let title = if name == "default" { "[default]".to_owned() } else { format!("[profile {name}]") };
        login.section(title, &PROFILE, |key| profile.get(key));
        let secret = SECRET.iter().filter(|(key, _)| profile.get(key).is_some());
        login.lines.extend(secret.map(|(_, what)| format!("# and {what}, which is not on this card")));
        sessions.extend(profile.get("sso_session"));
        if profile.get("sso_session").or(profile.get("sso_start_url")).is_some() {
            login.sso = Some(name.to_owned());
        }
        next = profile.get("source_profile");
    }
    for name in sessions {
        if let Some(session) = profiles.sso_session(name) {
            login.section(format!("[sso-session {name}]"), &SESSION, |key| session.get(key));
        }
    }
    login
}

impl Login {
    fn section<'a>(&mut self, title: String, keys: &[&str], get: impl Fn(&str) -> Option<&'a str>) {
        self.lines.push(title);
        // Several lines are settings of other things.
        let values =
            keys.iter().filter_map(|key| Some((key, get(key).filter(|value| !value.contains('\n'))?)));
        self.lines.extend(values.map(|(key, value)| format!("{key} = {value}")));
    }
}

#[cfg(test)]
mod tests {
    use aws_runtime::env_config::file::EnvConfigFileKind::{Config, Credentials};

    use super::*;

    fn read(config: &str, credentials: &str, selected: &'static str) -> Login {
        let files =
            EnvConfigFiles::builder().with_contents(Config, config).with_contents(Credentials, credentials);
        let env = Env::from_slice(&[("AWS_PROFILE", selected)]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        of(&runtime.block_on(load(&Fs::from_slice(&[]), &env, &files.build(), None)).unwrap())
    }

    #[test]
    fn roles_lead_to_what_they_stand_on() {
        let config = "[profile work]\nrole_arn = arn:aws:iam::1:role/vault\nsource_profile = base\nexternal_id = hidden\n\
                      [profile base]\nsource_profile = work\nsso_session = corp\nsso_account_id = 1\n\
                      [sso-session corp]\nsso_region = eu-west-1\nsso_registration_scopes = sso:account:access\n\
                      [sso-session other]\nsso_region = hidden\n";
        let login = read(config, "", "work");
        assert_eq!((login.profile.as_deref(), login.sso.as_deref()), (Some("work"), Some("base")));
        assert_eq!(
            login.lines,
            [
                "[profile work]",
                "role_arn = arn:aws:iam::1:role/vault",
                "source_profile = base",
                "[profile base]",
                "sso_session = corp",
                "sso_account_id = 1",
                "source_profile = work",
                "[sso-session corp]",
                "sso_region = eu-west-1",
                "sso_registration_scopes = sso:account:access",
            ]
        );
    }

    #[test]
    fn secrets_are_named_and_not_told() {
        let config = "[default]\nregion = eu-west-1\ncredential_process = hidden --password hidden\n";
        let credentials = "[default]\naws_access_key_id = HIDDEN\naws_secret_access_key = hidden\naws_session_token = hidden\n";
        let login = read(config, credentials, "default");
        assert_eq!((login.profile, login.sso), (None, None));
        assert_eq!(
            login.lines,
            [
                "[default]",
                "region = eu-west-1",
                "# and an access key, which is not on this card",
                "# and a program that gives credentials, which is not on this card",
            ]
        );
        assert_eq!(read("", "", "default"), Login::default());
        assert_eq!(read("[sso-session default]\n", "", "nobody"), Login::default());
    }
}
