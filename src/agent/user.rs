//! The pod's user: name, home and shell, from the image's user database.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::env;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who the agent runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell, if there is one.
    pub shell: Option<PathBuf>,
}

impl User {
    /// The user of this process by `/etc/passwd`, which may lack it.
    pub fn current() -> User {
        let database = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let uid = rustix::process::getuid().as_raw();
        let mut user = User::find(&database, uid);
        user.shell = user
            .shell
            .into_iter()
            .chain(["/bin/bash", "/bin/sh"].map(PathBuf::from))
            .find(|shell| fs::metadata(shell).is_ok_and(|found| found.is_file()));
        user
    }

    fn find(database: &str, uid: u32) -> User {
        let found = database.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
            let &[name, _, id, _, _, home, shell] = fields.as_slice() else { return None };
            let shell = (!shell.is_empty() && !shell.ends_with("/nologin") && !shell.ends_with("/false"))
                .then(|| PathBuf::from(shell));
            (id.parse() == Ok(uid)).then(|| User { name: name.to_owned(), home: home.into(), shell })
        });
        found.unwrap_or_else(|| User { name: uid.to_string(), home: "/".into(), shell: None })
    }

    /// The environment of a new process: the agent's own, the user's, then `extra`.
    pub fn environment(&self, extra: &BTreeMap<String, String>) -> BTreeMap<OsString, OsString> {
        let mut environment: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        environment.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
        environment.insert(env::HOME.into(), self.home.clone().into());
        environment.insert("USER".into(), self.name.clone().into());
        environment.insert("LOGNAME".into(), self.name.clone().into());
        if let Some(shell) = &self.shell {
            environment.insert("SHELL".into(), shell.clone().into());
        }
        environment.extend(extra.iter().map(|(name, value)| (name.into(), value.into())));
        environment
    }

    /// Where commands start: `wanted` if it is there, else the workspace, else the home, else `/`.
    pub fn directory(&self, wanted: Option<&str>) -> PathBuf {
        let candidates =
            [wanted.map(Path::new), Some(Path::new(crate::pod::spec::WORKSPACE)), Some(&self.home)];
        let found = candidates.into_iter().flatten().find(|path| path.is_dir());
        found.unwrap_or(Path::new("/")).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_user_by_id() {
        let database = "root:x:0:0:root:/root:/bin/bash\nbad line\ntaz:x:1000:1000::/home/taz:/bin/zsh\nd:x:2:2::/:/usr/sbin/nologin\n";
        let taz = User::find(database, 1000);
        assert_eq!((taz.name.as_str(), taz.home.as_path()), ("taz", Path::new("/home/taz")));
        assert_eq!(taz.shell.as_deref(), Some(Path::new("/bin/zsh")));
        assert_eq!(User::find(database, 2).shell, None);
        assert_eq!(User::find(database, 7).name, "7");
    }
}
