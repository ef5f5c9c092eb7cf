//! The tree of verticals as lines, and in the languages of Mermaid and Graphviz.

use crate::catalog::{Catalog, Origin, Vertical};

/// The lines of the drawing; one without a vertical is a heading.
pub fn tree(catalog: &Catalog) -> Vec<(String, Option<&Vertical>)> {
    let mut lines = Vec::new();
    for root in catalog.children(None) {
        lines.push((root.name.clone(), Some(root)));
        branches(catalog, root, "", &mut lines);
    }
    for (prefix, group) in foreign(catalog) {
        lines.push((prefix, None));
        let last = group.len().saturating_sub(1);
        for (index, vertical) in group.into_iter().enumerate() {
            let corner = if index == last { "└ " } else { "├ " };
            lines.push((format!("{corner}{}", vertical.name), Some(vertical)));
        }
    }
    lines
}

fn branches<'a>(
    catalog: &'a Catalog,
    parent: &'a Vertical,
    indent: &str,
    lines: &mut Vec<(String, Option<&'a Vertical>)>,
) {
    let mut children = catalog.children(Some(&parent.name)).peekable();
    while let Some(child) = children.next() {
        let (corner, below) = if children.peek().is_some() { ("├ ", "│ ") } else { ("└ ", "  ") };
        lines.push((format!("{indent}{corner}{}", child.name), Some(child)));
        branches(catalog, child, &format!("{indent}{below}"), lines);
    }
}

/// Images that others build, by the first part of their names.
fn foreign(catalog: &Catalog) -> Vec<(String, Vec<&Vertical>)> {
    let foreign: Vec<_> = catalog.verticals().iter().filter(|v| v.origin == Origin::Foreign).collect();
    let prefix = |vertical: &Vertical| vertical.name.split(':').next().unwrap_or_default().to_owned();
    let groups = foreign.chunk_by(|a, b| prefix(a) == prefix(b));
    groups.filter_map(|group| Some((prefix(group.first()?), group.to_vec()))).collect()
}

/// The verticals of the tree.
fn own(catalog: &Catalog) -> impl Iterator<Item = &Vertical> {
    catalog.verticals().iter().filter(|vertical| vertical.origin != Origin::Foreign)
}

/// A flowchart of Mermaid's, which Git forges draw: <https://mermaid.js.org/syntax/flowchart.html>.
pub fn mermaid(catalog: &Catalog) -> String {
    // Mermaid's own words are no names of nodes, nor is what has a colon.
    let id = |name: &str| format!("n_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    let text = |text: &str| text.replace('&', "#amp;").replace('"', "#quot;").replace('<', "#lt;");
    let mut lines = vec!["flowchart LR".to_owned()];
    for vertical in own(catalog) {
        let (node, summary) = (id(&vertical.name), text(&vertical.summary));
        lines.push(format!("    {node}[\"<b>{}</b><br>{summary}\"]", vertical.name));
        lines.extend(vertical.parent.iter().map(|parent| format!("    {} --> {node}", id(parent))));
    }
    for (prefix, group) in foreign(catalog) {
        lines.push(format!("    subgraph {}[\"{prefix}\"]", id(&format!("group {prefix}"))));
        lines.extend(
            group.iter().map(|vertical| format!("        {}[\"{}\"]", id(&vertical.name), vertical.name)),
        );
        lines.push("    end".to_owned());
    }
    lines.join("\n")
}

/// A graph in Graphviz's language: <https://graphviz.org/doc/info/lang.html>.
pub fn dot(catalog: &Catalog) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut lines =
        vec!["digraph tazpod {".to_owned(), "    rankdir = LR;".into(), "    node [shape = box];".into()];
    for vertical in own(catalog) {
        let name = quoted(&vertical.name);
        let label = quoted(&format!("{}\n{}", vertical.name, vertical.summary)).replace('\n', "\\n");
        lines.push(format!("    {name} [label = {label}];"));
        lines.extend(vertical.parent.iter().map(|parent| format!("    {} -> {name};", quoted(parent))));
    }
    for (prefix, group) in foreign(catalog) {
        let cluster = quoted(&format!("cluster_{prefix}"));
        lines.push(format!("    subgraph {cluster} {{\n        label = {};", quoted(&prefix)));
        lines.extend(group.iter().map(|vertical| format!("        {};", quoted(&vertical.name))));
        lines.push("    }".to_owned());
    }
    lines.push("}".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree() {
        let catalog = Catalog::builtin().unwrap();
        let drawn: Vec<_> = tree(&catalog).into_iter().map(|(line, _)| line).collect();
        let wanted = "\
base
├ aws
│ └ k8s
│   └ ai
├ nvidia
│ ├ nvidia-python
│ │ └ jupyter
│ └ playwright
├ devops
├ githubrunner
└ dev
bazzite
├ bazzite:base
├ bazzite:nvidia
├ bazzite:nvidia-python
├ bazzite:jupyter
├ bazzite:playwright
├ bazzite:devops
└ bazzite:githubrunner";
        assert_eq!(drawn.join("\n"), wanted);
    }

    fn small() -> Catalog {
        let text = r#"
registry = "r"
[[vertical]]
name = "one"
summary = 'says "x" & \ <y>'
user = "u"
home = "/"
[[vertical]]
name = "two-b"
parent = "one"
summary = ""
[[foreign]]
name = "f"
image = "r.example/{name}:t"
summary = ""
user = "u"
home = "/"
names = ["one"]
"#;
        Catalog::parse(text).unwrap()
    }

    #[test]
    fn in_mermaids_language() {
        let wanted = r##"flowchart LR
    n_one["<b>one</b><br>says #quot;x#quot; #amp; \ #lt;y>"]
    n_two_b["<b>two-b</b><br>"]
    n_one --> n_two_b
    subgraph n_group_f["f"]
        n_f_one["f:one"]
    end"##;
        assert_eq!(mermaid(&small()), wanted);
    }

    #[test]
    fn in_graphvizs_language() {
        let wanted = r#"digraph tazpod {
    rankdir = LR;
    node [shape = box];
    "one" [label = "one\nsays \"x\" & \\ <y>"];
    "two-b" [label = "two-b\n"];
    "one" -> "two-b";
    subgraph "cluster_f" {
        label = "f";
        "f:one";
    }
}"#;
        assert_eq!(dot(&small()), wanted);
    }

    #[test]
    fn the_manual_has_the_picture() {
        let manual = include_str!("../../../docs/images.md");
        let picture = format!("```mermaid\n{}\n```\n", mermaid(&Catalog::builtin().unwrap()));
        assert!(
            manual.contains(&picture),
            "docs/images.md lacks `tazpod images --format mermaid`:\n{picture}"
        );
    }
}
