//! Whether an image is what its vertical promises: a script that looks, and what its answers mean.

use serde::Serialize;

use crate::catalog::{Tool, Vertical};

/// Where images keep lists of what they took from elsewhere than the distribution: lines of tool, source and version,
/// or of tool, `-` and the reason why it was left out, between tabs.
const LISTS: &str = "/usr/local/share/tazpod/tools";

/// The source of what no list names.
const DISTRIBUTION: &str = "distribution";

/// What became of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub tool: String,
    /// It works, is left out, or does not work.
    pub state: State,
}

/// See [`Finding`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It answered.
    Works {
        /// As it says.
        version: String,
        /// Where it was taken from.
        source: String,
    },
    /// The image was built without it, for this reason.
    LeftOut(String),
    /// Its check failed, and said this.
    Fails(String),
}

/// A [`Finding`], for reports.
#[derive(Debug, Serialize)]
pub struct ToolReport {
    tool: String,
    /// Missing where it was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
    /// What its check said, where it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    fails: Option<String>,
}

impl ToolReport {
    /// Of this finding.
    pub fn of(finding: Finding) -> ToolReport {
        let (tool, version, source, left_out, fails) = (finding.tool, None, None, None, None);
        let report = ToolReport { tool, version, source, left_out, fails };
        match finding.state {
            State::Works { version, source } => {
                ToolReport { version: Some(version), source: Some(source), ..report }
            }
            State::LeftOut(why) => ToolReport { left_out: Some(why), ..report },
            State::Fails(said) => ToolReport { fails: Some(said), ..report },
        }
    }
}

/// A script that runs the vertical's `verify` commands until one fails, and then says which and what it said; after
/// that it checks every tool.
pub fn script(vertical: &Vertical) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let verify = vertical.verify.iter().map(|command| {
        let command = quoted(command);
        format!(
            "output=$(timeout 60 sh -c {command} 2>&1 </dev/null) || {{ printf '`%s` ended with %s\\n%s\\n' {command} \"$?\" \"$output\"; exit 1; }}\n"
        )
    });
    let list = |kind: &str, of: &str| format!("cat {LISTS}/{of} 2>/dev/null | sed 's/^/{kind}\\t/'\n");
    let lists = [list("own", &vertical.name), list("list", "*")];
    let tools = vertical.tools.iter().map(|tool| {
        format!(
            "output=$(timeout 60 sh -c {} 2>&1 </dev/null); printf 'tool\\t%s\\t%s\\t%s\\n' {} \"$?\" \"$(printf %s \"$output\" | grep -m1 .)\"\n",
            quoted(&tool.check),
            quoted(&tool.name)
        )
    });
    verify.chain(lists).chain(tools).collect()
}

/// What the script's output says of each tool.
pub fn findings(tools: &[Tool], output: &str) -> Vec<Finding> {
    let lines = |kind: &'static str| {
        output.lines().filter_map(move |line| {
            let mut fields = line.split('\t');
            (fields.next() == Some(kind)).then_some(())?;
            Some((fields.next()?, fields.next()?, fields.next().unwrap_or_default()))
        })
    };
    let find = |tool: &Tool| {
        let of = |kind, left_out: bool| {
            lines(kind).find(|(name, source, _)| *name == tool.name && (*source == "-") == left_out)
        };
        let listed = of("list", false);
        // What a layer below left out this one may bring.
        let left_out = of("list", true).filter(|_| of("own", false).is_none());
        match lines("tool").find(|(name, ..)| *name == tool.name) {
            Some((_, "0", said)) => State::Works {
                // Some that distributions build do not know their own.
                version: version(said)
                    .or(listed.map(|(_, _, version)| version).filter(|version| !version.is_empty()))
                    .unwrap_or(said)
                    .to_owned(),
                source: listed.map_or(DISTRIBUTION, |(_, source, _)| source).to_owned(),
            },
            _ if left_out.is_some() => {
                State::LeftOut(left_out.map(|(.., reason)| reason).unwrap_or_default().to_owned())
            }
            Some((_, code, said)) => State::Fails(format!("`{}` ended with {code}: {said}", tool.check)),
            None => State::Fails(format!("`{}` never ran", tool.check)),
        }
    };
    tools.iter().map(|tool| Finding { tool: tool.name.clone(), state: find(tool) }).collect()
}

/// The first word that looks like a version, without what stands around it.
fn version(said: &str) -> Option<&str> {
    let digits = |c: char| c.is_ascii_digit();
    let found = said.split([' ', ',', '(', ')', '"', '\'', '/']).find_map(|word| {
        let (_, rest) = word.split_at(word.find(digits)?);
        let (major, minor) = rest.split_once('.')?;
        (major.chars().all(digits) && minor.starts_with(digits)).then_some(rest)
    });
    found.map(|found| found.trim_end_matches(['.', ';', ':', ']', '}']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    fn run(verify: &[&str], tools: &[(&str, &str)]) -> (bool, String, Vec<Finding>) {
        let catalog = Catalog::builtin().unwrap();
        let tool = |(name, check): &(&str, &str)| Tool { name: (*name).into(), check: (*check).into() };
        let vertical = Vertical {
            verify: verify.iter().map(|&command| command.to_owned()).collect(),
            tools: tools.iter().map(tool).collect(),
            ..catalog.find("aws").unwrap().clone()
        };
        let ran = std::process::Command::new("sh").args(["-c", &script(&vertical)]).output().unwrap();
        let output = String::from_utf8(ran.stdout).unwrap();
        let found = findings(&vertical.tools, &output);
        (ran.status.success(), output, found)
    }

    #[test]
    fn reports_tell_what_is_missing_from_what_is_broken() {
        let report =
            |state| serde_json::to_value(ToolReport::of(Finding { tool: "x".into(), state })).unwrap();
        assert_eq!(report(State::LeftOut("no".into())), serde_json::json!({ "tool": "x", "left_out": "no" }));
        assert_eq!(report(State::Fails("127".into())), serde_json::json!({ "tool": "x", "fails": "127" }));
        let works = State::Works { version: "1".into(), source: "apt".into() };
        assert_eq!(report(works), serde_json::json!({ "tool": "x", "version": "1", "source": "apt" }));
    }

    #[test]
    fn verification_names_the_command_that_failed() {
        let (good, output, _) = run(&["true", r#"test 'a b' = "a b""#], &[]);
        assert_eq!((good, output.as_str()), (true, ""));
        let (good, output, _) = run(&["echo fine", "echo it\\'s wrong; exit 3", "echo never"], &[]);
        assert!(!good);
        assert_eq!(output, "`echo it\\'s wrong; exit 3` ended with 3\nit's wrong\n");
    }

    #[test]
    fn every_tool_is_checked_whatever_the_others_do() {
        let (_, _, found) = run(
            &[],
            &[("a", "echo; echo 'a version 1.2.3 (x)'"), ("b", "echo gone >&2; exit 4"), ("c", "echo c v3")],
        );
        let works = |version: &str| State::Works { version: version.into(), source: DISTRIBUTION.into() };
        let states: Vec<_> = found.into_iter().map(|finding| finding.state).collect();
        assert_eq!(
            states,
            [
                works("1.2.3"),
                State::Fails("`echo gone >&2; exit 4` ended with 4: gone".into()),
                works("c v3")
            ]
        );
    }

    #[test]
    fn lists_say_where_tools_come_from_and_which_are_left_out() {
        let tools = ["fzf", "nvm", "yazi", "hcloud", "eza", "bat", "rg"]
            .map(|name| Tool { name: name.into(), check: "x".into() });
        let output = "own\tnvm\t-\tcannot reach it\nlist\tfzf\tmise\t0.60\nlist\tnvm\t-\tcannot reach it\ntool\tfzf\t0\t0.60.1\ntool\tnvm\t127\tno\n\
                      list\thcloud\tapt\t1.39\ntool\thcloud\t0\thcloud unknown\n\
                      list\teza\t-\tof a layer below\nown\teza\tnpm\t1\ntool\teza\t1\tbroken\n\
                      list\tbat\t-\tof a layer below\ntool\tbat\t0\tbat 1.0\n\
                      list\trg\t-\tof a layer below\ntool\trg\t127\tno\n";
        let states: Vec<_> = findings(&tools, output).into_iter().map(|finding| finding.state).collect();
        assert_eq!(
            states,
            [
                State::Works { version: "0.60.1".into(), source: "mise".into() },
                State::LeftOut("cannot reach it".into()),
                State::Fails("`x` never ran".into()),
                State::Works { version: "1.39".into(), source: "apt".into() },
                State::Fails("`x` ended with 1: broken".into()),
                State::Works { version: "1.0".into(), source: DISTRIBUTION.into() },
                State::LeftOut("of a layer below".into()),
            ]
        );
    }

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (said, found) in [
            ("git version 2.47.3", "2.47.3"),
            ("go version go1.24.4 linux/amd64", "1.24.4"),
            ("tmux 3.5a", "3.5a"),
            ("NVIM v0.10.4", "0.10.4"),
            ("OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.4 30 Sep 2025", "10.0p2"),
            ("Docker version 26.1.5+dfsg1, build a72d7cd", "26.1.5+dfsg1"),
            ("fzf 0.60 (debian)", "0.60"),
            ("DiG 9.20.15-1~deb13u1-Debian", "9.20.15-1~deb13u1-Debian"),
            ("wireguard-tools v1.0.20210914 - https://git.zx2c4.com/", "1.0.20210914"),
            ("commit=, build date=, version=0.45.0, os=linux", "0.45.0"),
        ] {
            assert_eq!(version(said), Some(found));
        }
        assert_eq!((version("no number"), version("")), (None, None));
    }
}
