//! Who a user of the guest is: by its `/etc/passwd` and `/etc/group`.

use anyhow::{Context as _, Result};
use std::fs;

/// Who a program is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
    /// As he is called, if he has a name.
    pub(crate) name: Option<String>,
}

impl User {
    /// Whom `said` means: `user` or `user:group`, names or numbers.
    pub(crate) fn find(said: &str) -> Result<Self> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::of(said, &read("/etc/passwd"), &read("/etc/group"))
            .with_context(|| format!("the guest knows no user {said}"))
    }

    fn of(said: &str, passwd: &str, group: &str) -> Option<Self> {
        let (name, group_name) = said.split_once(':').unwrap_or((said, ""));
        let number = name.parse::<u32>().ok();
        let accounts = || passwd.lines().map(fields).filter(|account| account.len() >= 6);
        let by_name = accounts().find(|account| account[0] == name);
        let by_number = || accounts().find(|account| number.is_some_and(|n| is(account[2], n)));
        let account = by_name.or_else(by_number);
        let mut user = match &account {
            Some(account) => Self {
                uid: account[2].parse().ok()?,
                gid: account[3].parse().ok()?,
                groups: Vec::new(),
                home: account[5].to_owned(),
                name: Some(account[0].to_owned()),
            },
            None => Self { uid: number?, home: "/".into(), ..Self::default() },
        };
        let groups = || group.lines().map(fields).filter(|group| group.len() >= 4);
        if !group_name.is_empty() {
            let named = groups().find(|group| group[0] == group_name);
            let named = named.and_then(|group| group[2].parse().ok());
            user.gid = named.or_else(|| group_name.parse().ok())?;
        } else if let Some(account) = &account {
            let has = |group: &Vec<&str>| group[3].split(',').any(|name| name == account[0]);
            user.groups = groups().filter(has).filter_map(|group| group[2].parse().ok()).collect();
        }
        Some(user)
    }
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

fn is(field: &str, number: u32) -> bool {
    field.parse() == Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n\nweb:x:33:34:w:/srv:/bin/sh\n7:x:9:9::/n:\n";
    const GROUP: &str = "root:x:0:\nlogs:x:50:web,other\ndisk:x:6:root,web\n";

    fn user(said: &str) -> Option<(u32, u32, Vec<u32>, String)> {
        User::of(said, PASSWD, GROUP).map(|it| (it.uid, it.gid, it.groups, it.home))
    }

    #[test]
    fn names_and_numbers_are_found() {
        let web = |gid, groups: &[u32]| Some((33, gid, groups.to_vec(), "/srv".to_owned()));
        assert_eq!(user("web"), web(34, &[50, 6]));
        assert_eq!(user("33"), web(34, &[50, 6]));
        assert_eq!(user("web:disk"), web(6, &[]));
        assert_eq!(user("web:7"), web(7, &[]));
        assert_eq!(user("7"), Some((9, 9, vec![], "/n".to_owned())), "a name first");
        assert_eq!(user("1000"), Some((1000, 0, vec![], "/".to_owned())));
        assert_eq!((user("nobody"), user("web:none"), user("")), (None, None, None));
    }
}
