//! Access control lists, from how Linux hands them out to how ext4 keeps them.
//!
//! Both are little-endian. Handed out (uapi/linux/posix_acl_xattr.h): a version of four bytes, 2,
//! then entries of a tag, permissions and an ID of four bytes. Kept (fs/ext4/acl.h): version 1, and
//! only the entries that name somebody have an ID.

const HANDED_OUT: [u8; 4] = [2, 0, 0, 0];
const KEPT: [u8; 4] = [1, 0, 0, 0];
/// The tags of the entries that name a user or a group.
const NAMES_SOMEBODY: [u16; 2] = [0x02, 0x08];

/// `list` as ext4 keeps it, if it is one.
pub(crate) fn kept(list: &[u8]) -> Option<Vec<u8>> {
    let entries = list.strip_prefix(&HANDED_OUT)?;
    if !entries.len().is_multiple_of(8) {
        return None;
    }
    let mut kept = KEPT.to_vec();
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let bytes = if NAMES_SOMEBODY.contains(&tag) { 8 } else { 4 };
        kept.extend_from_slice(&entry[..bytes]);
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_named_keeps_an_id() {
        let owner = [1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff];
        let user = [2, 0, 4, 0, 0xe8, 3, 0, 0];
        let list = [&HANDED_OUT[..], &owner, &user].concat();
        assert_eq!(kept(&list), Some([&KEPT[..], &owner[..4], &user].concat()));
        assert_eq!(kept(&list[..list.len() - 1]), None);
        assert_eq!(kept(&KEPT), None);
        assert_eq!(kept(&[]), None);
    }
}
