//! Why an access faults.

use x86::addr::Vector;
use x86::exception::Exception;

/// What an access raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessFault {
    /// The address is not canonical: #SS(0) for a reference to the stack, #GP(0) for any other (SDM
    /// vol. 1, 3.3.7.1; vol. 3, 6.15, interrupts 12 and 13).
    NonCanonical,
    /// This, whatever the access refers to.
    Raised(Exception),
}

impl AccessFault {
    /// What a reference to the stack raises.
    pub(crate) const fn on_stack(self) -> Exception {
        match self {
            Self::NonCanonical => Exception::with_code(Vector::SS, 0),
            Self::Raised(exception) => exception,
        }
    }
}

impl From<Exception> for AccessFault {
    fn from(exception: Exception) -> Self {
        Self::Raised(exception)
    }
}

/// What a reference to anything but the stack raises.
impl From<AccessFault> for Exception {
    fn from(fault: AccessFault) -> Self {
        match fault {
            AccessFault::NonCanonical => Self::gp(0),
            AccessFault::Raised(exception) => exception,
        }
    }
}
