//! Images from the catalog: plan, context, build.
