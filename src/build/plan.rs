//! What to build and why: a pure function of the catalog, the sources and what the engine has.

use std::collections::HashMap;

use super::context::Sources;
use crate::catalog::{Catalog, Vertical};
use crate::error::{Error, Kind, Result};
use crate::pod::spec::label;

/// Label of images: SHA-256 of the sources that they were built from.
pub const CONTEXT_LABEL: &str = "io.tazpod.context";
/// Label of images: id of the image that they stand on.
pub const PARENT_LABEL: &str = "io.tazpod.parent";

/// Label of images that no registry has: the directory of the project's that they were built from.
pub const DIRECTORY_LABEL: &str = "io.tazpod.directory";

/// The argument of Containerfiles that stand on the root filesystem.
pub const ROOT: &str = "ROOT";

/// Label of images that may lack tools, because that was allowed.
pub const ALLOWED_LABEL: &str = "io.tazpod.allow-missing";

/// Why an image is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The engine does not have it.
    Missing,
    /// The user wants it anew.
    Forced,
    /// Its sources are not those that it was built from.
    Sources,
    /// The image that it stands on is another, or will be.
    Parent,
    /// It was built with the permission to lack tools, which it has no more.
    Tools,
    /// It carries the agent of another build; one layer.
    Agent,
}

impl Reason {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::Forced => "forced",
            Reason::Sources => "sources changed",
            Reason::Parent => "parent changed",
            Reason::Tools => "tools may be missing",
            Reason::Agent => "agent changed",
        }
    }
}

/// One image to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// Of this vertical.
    pub vertical: &'a Vertical,
    /// Why.
    pub reason: Reason,
    /// From these sources.
    pub sources: Sources,
}

/// What the engine has, as far as the plan needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// The image's id.
    pub id: String,
    /// All labels.
    pub labels: HashMap<String, String>,
}

/// What to compare with.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The agent's build.
    pub agent: &'a str,
    /// The sources of a vertical, [`Sources::of`] but in tests.
    pub sources: fn(&Vertical) -> Result<Option<Sources>>,
    /// Build the verticals themselves even if nothing changed.
    pub force: bool,
    /// Build what stands on the root filesystem, even if nothing changed.
    pub rootfs: bool,
    /// Whether images may lack tools.
    pub allow_missing: bool,
}

/// The images to build, parents first, so that those of `verticals` are there and current. `existing` gives what the
/// engine has under a reference. Empty where nothing is to be done.
///
/// # Errors
/// [`Kind::Image`] where one that must be built has no Containerfile, or one that leaves its parent out.
pub fn plan<'a>(
    catalog: &'a Catalog,
    verticals: &[&'a Vertical],
    existing: impl Fn(&str) -> Option<Existing>,
    wanted: Wanted<'_>,
) -> Result<Vec<Step<'a>>> {
    // First of all, so that the error is about what was asked for.
    for vertical in verticals {
        sources_of(vertical, wanted)?;
    }
    let mut chains = Vec::new();
    for vertical in verticals {
        chains.extend(catalog.chain(vertical));
    }
    let mut steps: Vec<Step<'a>> = Vec::new();
    // What the engine has of those that were looked at.
    let mut decided: HashMap<&str, Option<Existing>> = HashMap::new();
    for current in chains {
        if decided.contains_key(current.name.as_str()) {
            continue;
        }
        let sources = sources_of(current, wanted)?;
        if current.parent.is_some() && !sources.takes("PARENT") {
            let what = format!("the Containerfile of `{}` does not stand on its parent", current.name);
            return Err(Error::new(Kind::Image, what).hint("begin it with `ARG PARENT` and `FROM ${PARENT}`"));
        }
        let found = existing(&current.reference());
        let same = |name: &str, value: &str| {
            found.as_ref().and_then(|image| image.labels.get(name)).is_some_and(|found| found == value)
        };
        let parent_is_built = steps.iter().any(|step| Some(&step.vertical.name) == current.parent.as_ref());
        let parent =
            current.parent.as_deref().and_then(|parent| decided.get(parent)).and_then(Option::as_ref);
        let forced = wanted.force && verticals.contains(&current);
        let reason = if forced || wanted.rootfs && sources.takes(ROOT) {
            Some(Reason::Forced)
        } else if found.is_none() {
            Some(Reason::Missing)
        } else if !same(CONTEXT_LABEL, &sources.hash()) {
            Some(Reason::Sources)
        } else if parent_is_built || parent.is_some_and(|parent| !same(PARENT_LABEL, &parent.id)) {
            Some(Reason::Parent)
        } else if !wanted.allow_missing && same(ALLOWED_LABEL, "true") {
            Some(Reason::Tools)
        } else if sources.carries_agent && !same(label::AGENT, wanted.agent) {
            Some(Reason::Agent)
        } else {
            None
        };
        steps.extend(reason.map(|reason| Step { vertical: current, reason, sources }));
        decided.insert(&current.name, found);
    }
    Ok(steps)
}

fn sources_of(vertical: &Vertical, wanted: Wanted<'_>) -> Result<Sources> {
    if let Some(sources) = (wanted.sources)(vertical)? {
        return Ok(sources);
    }
    Err(Error::new(Kind::Image, format!("the image of `{}` is built by others", vertical.name))
        .hint(format!("tazpod can only pull it: `tazpod up {}`", vertical.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: Wanted<'_> =
        Wanted { agent: "1", sources: Sources::of, force: false, rootfs: false, allow_missing: false };

    fn base() -> Sources {
        let catalog = Catalog::builtin().unwrap();
        Sources::of(catalog.find("base").unwrap()).unwrap().unwrap()
    }

    fn child() -> Sources {
        Sources::in_memory(&[("Containerfile", b"ARG PARENT\nFROM ${PARENT}\n")])
    }

    /// One for the root of the tree, one for the rest.
    fn sources(vertical: &Vertical) -> Result<Option<Sources>> {
        Ok(Some(if vertical.parent.is_some() { child() } else { base() }))
    }

    fn image(id: &str, parent: &str, agent: &str) -> Existing {
        let context = if parent.is_empty() { base() } else { child() };
        let labels = [
            (CONTEXT_LABEL, context.hash()),
            (label::AGENT, agent.to_owned()),
            (PARENT_LABEL, parent.to_owned()),
        ];
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Existing { id: id.into(), labels }
    }

    /// Of verticals with spaces between.
    fn reasons(vertical: &str, existing: &[(&str, Existing)], wanted: Wanted<'_>) -> Vec<(String, Reason)> {
        let catalog = Catalog::builtin().unwrap();
        let existing = |reference: &str| {
            let found =
                existing.iter().find(|(name, _)| reference.ends_with(&format!("/tazpod-{name}:stable")));
            found.map(|(_, existing)| existing.clone())
        };
        let verticals: Vec<_> = vertical.split(' ').map(|name| catalog.find(name).unwrap()).collect();
        let steps = plan(&catalog, &verticals, existing, wanted).unwrap();
        steps.into_iter().map(|step| (step.vertical.name.clone(), step.reason)).collect()
    }

    #[test]
    fn what_is_current_is_left_alone() {
        assert_eq!(reasons("base", &[("base", image("a", "", "1"))], WANTED), []);
    }

    #[test]
    fn one_image() {
        let one = |existing: &[(&str, Existing)], wanted| reasons("base", existing, wanted)[0].1;
        let current = [("base", image("a", "", "1"))];
        assert_eq!(one(&[], WANTED), Reason::Missing);
        assert_eq!(one(&current, Wanted { force: true, ..WANTED }), Reason::Forced);
        assert_eq!(one(&current, Wanted { agent: "2", ..WANTED }), Reason::Agent);
        assert_eq!(one(&[("base", Existing::default())], WANTED), Reason::Sources);
        let mut lacking = current.clone();
        lacking[0].1.labels.insert(ALLOWED_LABEL.into(), "true".into());
        assert_eq!(one(&lacking, WANTED), Reason::Tools);
        assert_eq!(reasons("base", &lacking, Wanted { allow_missing: true, ..WANTED }), []);
    }

    #[test]
    fn parents_come_first_and_children_follow_them() {
        let wanted = Wanted { sources, ..WANTED };
        let step = |name: &str, reason| (name.to_owned(), reason);
        let base = ("base", image("b", "", "1"));
        let aws = ("aws", image("a", "b", "1"));
        let k8s = ("k8s", image("k", "a", "1"));
        assert_eq!(reasons("k8s", &[base.clone(), aws.clone(), k8s.clone()], wanted), []);
        assert_eq!(
            reasons("k8s", &[aws.clone(), k8s.clone()], wanted),
            [step("base", Reason::Missing), step("aws", Reason::Parent), step("k8s", Reason::Parent)]
        );
        assert_eq!(
            reasons("k8s", &[("base", image("other", "", "1")), aws.clone(), k8s.clone()], wanted),
            [step("aws", Reason::Parent), step("k8s", Reason::Parent)]
        );
        let all = "ai aws base devops k8s";
        let names =
            |steps: Vec<(String, Reason)>| steps.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(reasons(all, &[], wanted)), ["base", "aws", "k8s", "ai", "devops"]);
        let devops = ("devops", image("d", "b", "1"));
        let ai = ("ai", image("i", "k", "1"));
        let changed = ("aws", Existing { labels: HashMap::new(), ..aws.1.clone() });
        assert_eq!(
            reasons(all, &[base.clone(), changed, k8s.clone(), ai, devops], wanted),
            [step("aws", Reason::Sources), step("k8s", Reason::Parent), step("ai", Reason::Parent)]
        );
        let force = Wanted { force: true, ..wanted };
        let there = [base, aws, k8s];
        assert_eq!(reasons("k8s", &there, force), [step("k8s", Reason::Forced)]);
        assert_eq!(reasons("k8s", &there[..2], force), [step("k8s", Reason::Forced)]);
        let rootfs = Wanted { rootfs: true, ..wanted };
        let anew = [step("base", Reason::Forced), step("aws", Reason::Parent)];
        assert_eq!(reasons("aws", &there, rootfs), anew);
    }

    #[test]
    fn what_has_no_containerfile_is_an_error_with_advice() {
        let catalog = Catalog::builtin().unwrap();
        let orphan = Wanted { sources: |_| Ok(Some(base())), ..WANTED };
        let error = plan(&catalog, &[catalog.find("aws").unwrap()], |_| None, orphan).unwrap_err();
        assert_eq!(error.to_string(), "the Containerfile of `aws` does not stand on its parent");
        let foreign = catalog.find("bazzite:base").unwrap();
        let error = plan(&catalog, &[foreign], |_| None, WANTED).unwrap_err();
        assert_eq!(error.kind(), Kind::Image);
        assert_eq!(error.to_string(), "the image of `bazzite:base` is built by others");
        assert_eq!(error.hints().len(), 1);
    }
}
