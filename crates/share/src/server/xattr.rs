//! Extended attributes: those of users. The others are the host's affair: what its security modules
//! and access lists say holds for the host's user.

use super::Share;
use crate::inodes::NodeId;
use crate::message::{Answer, Arguments};
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;
use std::ffi::CString;

const PREFIX: &[u8] = b"user.";
/// Bytes of a value, and of a list of names, at the most (Linux, include/uapi/linux/limits.h).
const MOST: usize = 64 << 10;

/// The name of an attribute of a user's.
fn name(arguments: &mut Arguments<'_>) -> Result<CString, Errno> {
    let name = arguments.text()?;
    if name.as_bytes().starts_with(PREFIX) { Ok(name) } else { Err(Errno::OPNOTSUPP) }
}

/// `content`, or how long it is where the guest has no room (`fuse_getxattr_out`).
fn sized(content: &[u8], room: u32) -> Result<Answer, Errno> {
    let mut answer = Answer::default();
    match room as usize {
        0 => answer.u32(content.len() as u32).u32(0),
        room if room < content.len() => return Err(Errno::RANGE),
        _ => answer.bytes(content),
    };
    Ok(answer)
}

impl Share {
    /// A path that leads to the file `node` as long as the descriptor lives.
    fn with_path<T>(
        &self,
        node: NodeId,
        work: impl FnOnce(CString) -> rustix::io::Result<T>,
    ) -> Result<T, Errno> {
        let file = self.descriptor(node)?;
        work(self.files.path(&*file))
    }

    pub(super) fn getxattr(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let room = arguments.padded()?;
        let name = name(&mut arguments)?;
        let mut value = vec![0; MOST];
        let len = self.with_path(node, |path| getxattr(path, &name, &mut value[..]))?;
        sized(&value[..len], room)
    }

    pub(super) fn listxattr(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let room = arguments.padded()?;
        let mut names = vec![0; MOST];
        let len = self.with_path(node, |path| listxattr(path, &mut names[..]))?;
        let all = names[..len].split_inclusive(|&byte| byte == 0);
        let own: Vec<u8> = all.filter(|name| name.starts_with(PREFIX)).flatten().copied().collect();
        sized(&own, room)
    }

    pub(super) fn setxattr(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let (size, flags) = (arguments.u32()?, arguments.u32()?);
        let name = name(&mut arguments)?;
        let flags = XattrFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        let value = arguments.take(size as usize)?;
        self.with_path(node, |path| setxattr(path, &name, value, flags))?;
        Ok(Answer::default())
    }

    pub(super) fn removexattr(
        &self,
        node: NodeId,
        mut arguments: Arguments<'_>,
    ) -> Result<Answer, Errno> {
        let name = name(&mut arguments)?;
        self.with_path(node, |path| removexattr(path, &name))?;
        Ok(Answer::default())
    }
}
