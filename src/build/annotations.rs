//! What images say of themselves to people and registries, by the names of the [OCI image specification].
//!
//! [OCI image specification]: https://github.com/opencontainers/image-spec/blob/main/annotations.md

use super::context::Sources;
use crate::catalog::Vertical;

/// Labels for the image of a vertical that stands on `base`, without those that its Containerfile says something of. What an image of ours
/// says of tazpod is taken away from a project's that stands on it.
pub fn of(vertical: &Vertical, sources: &Sources, base: Option<&str>) -> Vec<(String, String)> {
    let repository = env!("CARGO_PKG_REPOSITORY");
    let ours = |value: &'static str| if vertical.directory.is_none() { value } else { "" };
    let title = format!("tazpod-{}", vertical.name);
    let annotations = [
        ("title", Some(title.as_str())),
        ("description", Some(&vertical.summary)),
        ("base.name", base),
        ("version", Some(ours(env!("CARGO_PKG_VERSION")))),
        ("source", Some(ours(repository))),
        ("url", Some(ours(repository))),
    ];
    let named = annotations
        .into_iter()
        .filter_map(|(name, value)| Some((format!("org.opencontainers.image.{name}"), value?.to_owned())));
    named.filter(|(name, _)| !sources.mentions(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    #[test]
    fn a_projects_images_are_not_ours() {
        let catalog = Catalog::builtin().unwrap();
        let aws = catalog.find("aws").unwrap();
        let of = |vertical: &Vertical, containerfile: &'static str| {
            let sources = Sources::in_memory(&[("Containerfile", containerfile.as_bytes())]);
            let labels = super::of(vertical, &sources, Some("r.example/x:1"));
            let short = |name: String| name.trim_start_matches("org.opencontainers.image.").to_owned();
            labels.into_iter().map(|(name, value)| format!("{}={value}", short(name))).collect::<Vec<_>>()
        };
        let ours = of(aws, "FROM x\n");
        assert_eq!(ours[0], "title=tazpod-aws");
        assert_eq!(ours[2..4], ["base.name=r.example/x:1", concat!("version=", env!("CARGO_PKG_VERSION"))]);
        assert!(ours[4].starts_with("source=https://"), "{ours:?}");
        let mut own = aws.clone();
        own.directory = Some("/w/.tazpod/aws".into());
        assert_eq!(of(&own, "FROM x\n")[3..], ["version=", "source=", "url="]);
        let says = of(&own, "FROM x\nLABEL org.opencontainers.image.source=https://git.example/acme\n");
        assert_eq!(says[3..], ["version=", "url="]);
    }
}
