//! Whom an image means by `user`, `user:group` or numbers: by its own `/etc/passwd` and
//! `/etc/group`.

use serde::{Deserialize, Serialize};

/// Who a program is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's.
    pub gid: u32,
    /// Those of further groups.
    pub groups: Vec<u32>,
    /// The user's folder.
    pub home: String,
}

/// Nobody is meant.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("its {file} knows no {name:?}, as whom its command is to run")]
pub struct UserError {
    file: &'static str,
    name: String,
}

impl User {
    /// Whom `said` means where these are the two files. A number need not be in them.
    ///
    /// # Errors
    /// A name is not there.
    pub fn find(said: &str, passwd: &[u8], group: &[u8]) -> Result<Self, UserError> {
        let (name, group_name) = said.split_once(':').unwrap_or((said, ""));
        let number = if name.is_empty() { Some(0) } else { name.parse().ok() };
        let accounts = lines(passwd, 7);
        let is = |line: &&Vec<String>| match number {
            Some(uid) => line[2].parse() == Ok::<u32, _>(uid),
            None => line[0] == name,
        };
        let account = accounts.iter().find(is);
        let unknown = |file, name: &str| UserError { file, name: name.to_owned() };
        let mut user = match (account, number) {
            (Some(line), _) => Self {
                uid: line[2].parse().map_err(|_| unknown("/etc/passwd", name))?,
                gid: line[3].parse().map_err(|_| unknown("/etc/passwd", name))?,
                groups: Vec::new(),
                home: line[5].clone(),
            },
            (None, Some(uid)) => Self { uid, home: "/".into(), ..Self::default() },
            (None, None) => return Err(unknown("/etc/passwd", name)),
        };
        let groups = lines(group, 4);
        if !group_name.is_empty() {
            let line = groups.iter().find(|line| line[0] == group_name);
            let gid = match group_name.parse() {
                Ok(gid) => Some(gid),
                Err(_) => line.and_then(|line| line[2].parse().ok()),
            };
            user.gid = gid.ok_or_else(|| unknown("/etc/group", group_name))?;
        } else if let Some(account) = account {
            let member = |line: &&Vec<String>| line[3].split(',').any(|name| name == account[0]);
            let further = groups.iter().filter(member).filter_map(|line| line[2].parse().ok());
            user.groups = further.collect();
        }
        Ok(user)
    }
}

/// The lines of such a file that have so many fields.
fn lines(text: &[u8], fields: usize) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(text);
    let split = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    text.lines().map(split).filter(|line| line.len() >= fields).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# no line\nweb:x:33:34:w:/srv:/bin/sh\n\
        33b:x:40:40::/h:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nweb:x:34:\nlogs:x:50:web,other\ndisk:x:6:root,web\n";

    fn user(said: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        let user = User::find(said, PASSWD, GROUP);
        user.map(|it| (it.uid, it.gid, it.groups, it.home)).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_numbers_are_found() {
        let web = |groups: &[u32]| Ok((33, 34, groups.to_vec(), "/srv".to_owned()));
        assert_eq!(user(""), Ok((0, 0, vec![6], "/root".to_owned())));
        assert_eq!(user("web"), web(&[50, 6]));
        assert_eq!(user("33"), web(&[50, 6]));
        assert_eq!(user("web:disk"), Ok((33, 6, vec![], "/srv".to_owned())));
        assert_eq!(user("web:7"), Ok((33, 7, vec![], "/srv".to_owned())));
        assert_eq!(user("1000"), Ok((1000, 0, vec![], "/".to_owned())));
        assert_eq!(user("1000:logs"), Ok((1000, 50, vec![], "/".to_owned())));
        assert_eq!(user("33b"), Ok((40, 40, vec![], "/h".to_owned())));
    }

    #[test]
    fn who_is_unknown_is_named() {
        assert!(user("nobody").is_err_and(|why| why.contains("/etc/passwd knows no \"nobody\"")));
        assert!(user("web:none").is_err_and(|why| why.contains("/etc/group knows no \"none\"")));
        assert!(user("-1").is_err());
        assert!(user("4294967296").is_err());
        assert!(User::find("web", b"", b"").is_err());
        assert_eq!(User::find("", b"\xff:::\0", b"").map(|it| it.uid), Ok(0));
    }
}
