//! Control messages (virtio 1.2, 5.3.6.2): struct virtio_console_control, and what follows it.

/// Bytes of a message: id, event, value.
pub(super) const MESSAGE: usize = 8;

/// The id of messages that are about no port.
pub(super) const NO_PORT: u32 = u32::MAX;

pub(super) const DEVICE_READY: u16 = 0;
pub(super) const PORT_ADD: u16 = 1;
pub(super) const PORT_READY: u16 = 3;
pub(super) const PORT_OPEN: u16 = 6;
pub(super) const PORT_NAME: u16 = 7;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The port's number.
    pub(super) id: u32,
    pub(super) event: u16,
    pub(super) value: u16,
}

impl Message {
    pub(super) fn parse(bytes: [u8; MESSAGE]) -> Self {
        let [i0, i1, i2, i3, e0, e1, v0, v1] = bytes;
        Self {
            id: u32::from_le_bytes([i0, i1, i2, i3]),
            event: u16::from_le_bytes([e0, e1]),
            value: u16::from_le_bytes([v0, v1]),
        }
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        let Self { id, event, value } = self;
        let mut bytes = id.to_le_bytes().to_vec();
        bytes.extend(event.to_le_bytes());
        bytes.extend(value.to_le_bytes());
        bytes
    }
}
