//! Where a vault's store is, as users write it: `s3://bucket/prefix`, or an absolute path.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Kind, Result};

/// What a configuration says of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StoreSettings {
    /// `s3://bucket/prefix`, or an absolute path.
    pub address: String,
    /// The server, where it is not AWS: `https://host:port`.
    pub endpoint: Option<String>,
    /// The bucket's region.
    pub region: Option<String>,
    /// The profile in AWS's own configuration files.
    pub profile: Option<String>,
    /// Whether the bucket is part of the path (`https://host/bucket`) and not of the host's name.
    pub path_style: Option<bool>,
    /// Push even where the server ignores conditions, so that one machine can overwrite another's commit.
    pub accept_overwrites: Option<bool>,
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// A directory, by its absolute path.
    Directory(PathBuf),
    /// A bucket, or a part of one.
    S3(S3Config),
}

/// A bucket, or a part of one, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket.
    pub bucket: String,
    /// What all keys begin with; without slashes at its ends, and possibly empty.
    pub prefix: String,
    /// The server; AWS where there is none.
    pub endpoint: Option<String>,
    /// The bucket's region; that of the profile where there is none.
    pub region: Option<String>,
    /// The profile in AWS's own configuration files; the default one where there is none.
    pub profile: Option<String>,
    /// Whether the bucket is part of the path and not of the host's name.
    pub path_style: bool,
}

impl StoreConfig {
    /// A store by its address alone.
    ///
    /// # Errors
    /// [`Kind::Config`], with what an address looks like.
    pub fn parse(address: &str) -> Result<StoreConfig> {
        StoreConfig::new(&StoreSettings { address: address.to_owned(), ..StoreSettings::default() })
    }

    /// Checks what a configuration says.
    ///
    /// # Errors
    /// [`Kind::Config`], with what to write instead.
    pub fn new(settings: &StoreSettings) -> Result<StoreConfig> {
        let address = settings.address.as_str();
        if let Some(rest) = address.strip_prefix("s3://") {
            return bucket(rest, settings).map(StoreConfig::S3);
        }
        if let Some((scheme, rest)) = address.split_once("://") {
            return Err(match scheme {
                "file" => wrong(address, "is written as a path").hint(format!("write `{rest}`")),
                "http" | "https" => wrong(address, "is a server's address, not a bucket's")
                    .hint(format!("write `address = \"s3://BUCKET/PREFIX\"` and `endpoint = \"{address}\"`")),
                _ => wrong(address, "is of a kind that tazpod does not know")
                    .hint("a store is `s3://BUCKET/PREFIX`, or the absolute path of a directory"),
            });
        }
        let path = Path::new(address);
        if !path.is_absolute() {
            return Err(wrong(address, "is neither an absolute path nor `s3://BUCKET/PREFIX`")
                .hint("write the whole path, from `/`; `~` is not expanded"));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(wrong(address, "contains `..`").hint("write the path without it"));
        }
        let options = [
            ("endpoint", settings.endpoint.is_some()),
            ("region", settings.region.is_some()),
            ("profile", settings.profile.is_some()),
            ("path_style", settings.path_style.is_some()),
            ("accept_overwrites", settings.accept_overwrites.is_some()),
        ];
        if let Some((option, _)) = options.iter().find(|(_, given)| *given) {
            return Err(Error::new(Kind::Config, format!("`{option}` says nothing about a directory"))
                .hint(format!("leave it out, or give a bucket instead of `{address}`")));
        }
        // Without slashes at its end, and doubled ones.
        Ok(StoreConfig::Directory(path.components().collect()))
    }
}

fn wrong(address: &str, why: &str) -> Error {
    Error::new(Kind::Config, format!("the store's address `{address}` {why}"))
}

fn bucket(rest: &str, settings: &StoreSettings) -> Result<S3Config> {
    let address = settings.address.as_str();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    // Looser than AWS's rules: older buckets and other servers have underscores and capitals.
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(fits) {
        return Err(wrong(address, "names no bucket that could exist").hint(
            "it is `s3://BUCKET/PREFIX`; a bucket's name has 3 to 63 letters, digits, dots and hyphens",
        ));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.contains(|c: char| c.is_control());
    if !prefix.is_empty() && prefix.split('/').any(odd) {
        return Err(wrong(address, "has an empty part, `.` or `..` in its prefix")
            .hint("it is `s3://BUCKET/PREFIX`, and the prefix may be several names with slashes between"));
    }
    let endpoint = settings.endpoint.as_deref().map(endpoint).transpose()?;
    Ok(S3Config {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        // What runs elsewhere than at AWS rarely has a name for each bucket.
        path_style: settings.path_style.unwrap_or(endpoint.is_some()),
        endpoint,
        region: settings.region.clone(),
        profile: settings.profile.clone(),
    })
}

fn endpoint(given: &str) -> Result<String> {
    let wrong = || {
        Error::new(Kind::Config, format!("the endpoint `{given}` is no server's address"))
            .hint("it looks like `https://minio.example:9000`; the bucket belongs into the store's address")
    };
    let uri: hyper::Uri = given.parse().map_err(|source| wrong().with_source(source))?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
    let host = uri.host().is_some_and(|host| !host.is_empty());
    // A password in it would end up in messages and logs.
    let anonymous = !uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if known && bare && host && anonymous {
        Ok(given.strip_suffix('/').unwrap_or(given).to_owned())
    } else {
        Err(wrong())
    }
}

impl fmt::Display for StoreConfig {
    /// The address, as [`StoreConfig::parse`] takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreConfig::Directory(path) => write!(f, "{}", path.display()),
            StoreConfig::S3(config) => config.fmt(f),
        }
    }
}

impl fmt::Display for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> S3Config {
        S3Config {
            bucket: bucket.into(),
            prefix: prefix.into(),
            endpoint: None,
            region: None,
            profile: None,
            path_style: false,
        }
    }

    #[test]
    fn addresses() {
        for (address, bucket, prefix) in [
            ("s3://my-bucket", "my-bucket", ""),
            ("s3://my-bucket/", "my-bucket", ""),
            ("s3://my.bucket/team/vault", "my.bucket", "team/vault"),
            ("s3://my.bucket/team/vault/", "my.bucket", "team/vault"),
        ] {
            assert_eq!(StoreConfig::parse(address).unwrap(), StoreConfig::S3(s3(bucket, prefix)));
        }
        assert_eq!(StoreConfig::parse("s3://abc/d/").unwrap().to_string(), "s3://abc/d");
        let directory = StoreConfig::parse("/srv//vaults/mine/").unwrap();
        assert_eq!(directory, StoreConfig::Directory("/srv/vaults/mine".into()));
        assert_eq!(directory.to_string(), "/srv/vaults/mine");
    }

    #[test]
    fn what_is_no_address_says_what_one_is() {
        for (address, hint) in [
            ("", "write the whole path"),
            ("vaults/mine", "write the whole path"),
            ("~/vaults", "`~` is not expanded"),
            ("/srv/../etc", "without it"),
            ("file:///srv/vaults", "write `/srv/vaults`"),
            ("https://s3.example", "endpoint = \"https://s3.example\""),
            ("gs://bucket", "s3://BUCKET/PREFIX"),
            ("s3://", "3 to 63"),
            ("s3://ab", "3 to 63"),
            ("s3://user:password@host/x", "3 to 63"),
            ("s3://bucket//x", "slashes between"),
            ("s3://bucket/x/../y", "slashes between"),
        ] {
            let error = StoreConfig::parse(address).unwrap_err();
            assert_eq!(error.kind(), Kind::Config, "{address}");
            assert!(error.hints().iter().any(|given| given.contains(hint)), "{address}: {:?}", error.hints());
        }
    }

    #[test]
    fn options_of_buckets() {
        let with = |endpoint: &str, path_style| {
            StoreConfig::new(&StoreSettings {
                address: "s3://bucket/x".into(),
                endpoint: Some(endpoint.into()),
                path_style,
                ..StoreSettings::default()
            })
        };
        let style = |given| match with("https://minio.example:9000/", given).unwrap() {
            StoreConfig::S3(config) => (config.endpoint.unwrap(), config.path_style),
            StoreConfig::Directory(_) => unreachable!(),
        };
        assert_eq!(style(None), ("https://minio.example:9000".to_owned(), true));
        assert!(!style(Some(false)).1);
        for endpoint in ["minio.example", "ftp://x", "https://x/bucket", "https://u:p@x", "https://"] {
            assert!(with(endpoint, None).is_err(), "{endpoint}");
        }
        let directory = StoreSettings {
            address: "/srv/x".into(),
            region: Some("eu-central-1".into()),
            ..StoreSettings::default()
        };
        let error = StoreConfig::new(&directory).unwrap_err();
        assert!(error.to_string().contains("`region`"), "{error}");
    }
}
