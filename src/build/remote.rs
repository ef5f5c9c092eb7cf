//! What registries have.

use super::pull::{Failure, credentials, hints};
use crate::adapters::engine::{Engine, EngineInfo, InRegistry};
use crate::catalog::{Reference, Vertical};
use crate::context::Context;

/// What a registry has of the images of verticals, by their names; all of them are in the same one. `None` where it does not say: the first
/// reason is a warning, and one that does not answer is not asked again.
pub async fn in_registry(
    context: &Context,
    engine: &Engine,
    info: &EngineInfo,
    verticals: &[&Vertical],
) -> Vec<Option<InRegistry>> {
    let podman = info.traits.podman;
    let (mut found, mut warned, mut silent) = (Vec::new(), false, false);
    for vertical in verticals {
        let Ok(reference) = Reference::parse(&vertical.reference()) else {
            found.push(None);
            continue;
        };
        if silent {
            found.push(None);
            continue;
        }
        let who = credentials(context, &reference, podman).await;
        found.push(match engine.in_registry(&reference, who.as_ref(), podman).await {
            Ok(there) => Some(there),
            Err((error, reason)) => {
                let failure = Failure::of(&reason);
                // What one image is refused, another may be given.
                silent = !matches!(failure, Failure::NotFound | Failure::Denied);
                if failure != Failure::NotFound && !std::mem::replace(&mut warned, true) {
                    context.ui.warn(format!("{error}; what else is there is not known"));
                    let hints = hints(failure, &reference, podman, info.traits.rootless, who.is_some());
                    hints.into_iter().for_each(|hint| context.ui.hint(hint));
                }
                (failure == Failure::NotFound).then_some(InRegistry::Nothing)
            }
        });
    }
    found
}
