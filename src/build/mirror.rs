//! Which mirror a host's apt uses for its own distribution, from the texts of its configuration.

/// Where packages come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// Of the distribution.
    pub main: Option<String>,
    /// Of its security updates.
    pub security: Option<String>,
}

/// One `deb` entry.
#[derive(Debug, Default)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
}

impl Entry {
    fn serves(&self, suite: &str) -> bool {
        self.suites.iter().any(|s| s == suite) && self.components.iter().any(|c| c == "main")
    }
}

impl Mirror {
    /// The mirror of the distribution whose current suite is `codename` (`bookworm`), from one-line files
    /// (`sources.list`) and deb822 ones (`*.sources`). Repositories of others use the same suites: what counts
    /// has the distribution's usual path, or serves the suite's updates, too.
    pub fn of_host<'a>(
        codename: &str,
        one_line: impl IntoIterator<Item = &'a str>,
        deb822: impl IntoIterator<Item = &'a str>,
    ) -> Mirror {
        let mut entries: Vec<Entry> =
            one_line.into_iter().flat_map(str::lines).filter_map(one_line_entry).collect();
        entries.extend(deb822.into_iter().flat_map(deb822_entries));
        let updates = format!("{codename}-updates");
        let is_distribution = |uri: &str| {
            let last = uri.rsplit('/').next().unwrap_or_default();
            matches!(last, "debian" | "ubuntu" | "ubuntu-ports")
                || entries.iter().any(|entry| entry.serves(&updates) && entry.uris.iter().any(|u| u == uri))
        };
        let first = |suite: &str, fits: &dyn Fn(&str) -> bool| {
            let serving = entries.iter().filter(|entry| entry.serves(suite));
            serving.flat_map(|entry| &entry.uris).find(|uri| is_remote(uri) && fits(uri)).cloned()
        };
        Mirror {
            main: first(codename, &is_distribution),
            security: first(&format!("{codename}-security"), &|_| true),
        }
    }
}

/// Whether a container reaches it as the host does.
fn is_remote(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("http://").or_else(|| uri.strip_prefix("https://")) else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    !(host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("[::1]"))
}

fn plain(uri: &str) -> String {
    uri.trim_end_matches('/').to_owned()
}

/// `deb [OPTIONS] URI SUITE COMPONENT…`
fn one_line_entry(line: &str) -> Option<Entry> {
    let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Entry {
        uris: vec![plain(&words.next()?)],
        suites: vec![words.next()?],
        components: words.collect(),
    })
}

fn deb822_entries(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let (mut entry, mut key, mut enabled, mut binary) = (Entry::default(), String::new(), true, false);
        for line in stanza {
            let value = match line.split_once(':') {
                Some((name, value)) if !line.starts_with([' ', '\t']) => {
                    key = name.trim().to_ascii_lowercase();
                    value
                }
                _ => line,
            };
            let words = value.split_whitespace().map(str::to_owned);
            match key.as_str() {
                "types" => binary |= words.into_iter().any(|word| word == "deb"),
                "uris" => entry.uris.extend(words.map(|uri| plain(&uri))),
                "suites" => entry.suites.extend(words),
                "components" => entry.components.extend(words),
                "enabled" => enabled = !matches!(value.trim(), "no" | "false" | "0"),
                _ => {}
            }
        }
        if enabled && binary {
            entries.push(entry);
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(main: &str, security: &str) -> Mirror {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Mirror { main: some(main), security: some(security) }
    }

    #[test]
    fn one_line_files() {
        let text = "# deb http://old.example/debian bookworm main\n\
            deb-src http://src.example/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k] https://apt.example.com bookworm main\n\
            deb\t[ arch=amd64 ] http://ftp.example.org/debian/ bookworm main contrib # near\n\
            deb http://sec.example.org/debian-security bookworm-security main\n";
        let found = Mirror::of_host("bookworm", [text], []);
        assert_eq!(found, mirror("http://ftp.example.org/debian", "http://sec.example.org/debian-security"));
    }

    #[test]
    fn deb822_files() {
        let text = "Types: deb\nURIs: http://vendor.example/x\nSuites: noble\nComponents: main\n\n\
            Types: deb deb-src\n# why\nURIs:\n http://mirror.example/pool/\nSuites: noble noble-updates\n\
            Components: main universe\nSigned-By: -----BEGIN\n .\n URIs: no\n\n\
            Enabled: no\nTypes: deb\nURIs: http://off.example/\nSuites: noble-security\nComponents: main\n";
        assert_eq!(Mirror::of_host("noble", [], [text]), mirror("http://mirror.example/pool", ""));
    }

    #[test]
    fn what_a_container_cannot_reach_does_not_count() {
        for uri in ["http://127.0.0.1:3142/debian", "http://localhost/debian", "cdrom:[x]/", "file:/m/debian"]
        {
            let line = format!("deb {uri} bookworm main");
            assert_eq!(Mirror::of_host("bookworm", [line.as_str()], []), Mirror::default(), "{uri}");
        }
    }

    #[test]
    fn nonsense_is_passed_over() {
        let texts = ["deb", "deb ", "deb [", "deb http://x", "debris http://x/debian bookworm main", ""];
        assert_eq!(Mirror::of_host("bookworm", texts, [":::\n:\nTypes: deb\n\n\n"]), Mirror::default());
    }
}
