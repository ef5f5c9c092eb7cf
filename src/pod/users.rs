//! The user database of an image, changed so that the pod's user is in it.

use std::path::PathBuf;

use super::ownership::Ids;

/// The name of the pod's user where the image has none with its id.
const NAME: &str = "tazpod";

/// What has to change in a container before its first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The new `/etc/passwd`.
    pub passwd: String,
    /// The new `/etc/group`.
    pub group: String,
    /// The user's home.
    pub home: PathBuf,
    /// Whether the home exists, and belongs to another id.
    pub adopts_home: bool,
}

/// Puts the user `ids` into the database: as the user of uid 1000 with another id, or as a new one. `None` where it
/// is there already.
pub fn change(passwd: &str, group: &str, ids: Ids) -> Option<Change> {
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let id_of = |line: &str| fields(line).get(2).and_then(|id| id.parse::<u32>().ok());
    if passwd.lines().any(|line| id_of(line) == Some(ids.uid)) {
        return None;
    }
    let mut lines: Vec<String> = passwd.lines().map(str::to_owned).collect();
    let image_user = lines.iter_mut().find(|line| id_of(line) == Some(Ids::POD.uid));
    let adopts_home = image_user.is_some();
    let home = match image_user {
        Some(line) => {
            let mut user = fields(line);
            if let [_, _, uid, gid, ..] = user.as_mut_slice() {
                (*uid, *gid) = (ids.uid.to_string(), ids.gid.to_string());
            }
            *line = user.join(":");
            user.get(5).cloned().unwrap_or_default()
        }
        None => {
            let home = format!("/home/{NAME}");
            lines.push(format!("{NAME}:x:{}:{}::{home}:", ids.uid, ids.gid));
            home
        }
    };
    let mut groups: Vec<String> = group.lines().map(str::to_owned).collect();
    if !groups.iter().any(|line| id_of(line) == Some(ids.gid)) {
        groups.push(format!("{NAME}-user:x:{}:", ids.gid));
    }
    let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect();
    Some(Change { passwd: text(&lines), group: text(&groups), home: home.into(), adopts_home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n";
    const GROUP: &str = "root:x:0:\n";

    #[test]
    fn a_user_is_added() {
        let change = change(PASSWD, GROUP, Ids::POD).unwrap();
        assert_eq!(change.passwd, format!("{PASSWD}tazpod:x:1000:1000::/home/tazpod:\n"));
        assert_eq!(change.group, format!("{GROUP}tazpod-user:x:1000:\n"));
        assert!(!change.adopts_home);
    }

    #[test]
    fn the_images_user_gets_the_callers_ids() {
        let passwd = format!("{PASSWD}tazpod:x:1000:1000::/home/tazpod:/bin/bash\n");
        let ids = Ids { uid: 1234, gid: 0 };
        let change = super::change(&passwd, GROUP, ids).unwrap();
        assert_eq!(change.passwd, format!("{PASSWD}tazpod:x:1234:0::/home/tazpod:/bin/bash\n"));
        assert_eq!(change.group, GROUP);
        assert!(change.adopts_home);
    }

    #[test]
    fn nothing_changes_where_the_user_is_there() {
        assert_eq!(change(PASSWD, GROUP, Ids { uid: 0, gid: 0 }), None);
    }
}
