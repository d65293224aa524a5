//! Why an access faults, or cannot be made now.

use x86::addr::{Gpa, Vector};
use x86::exception::Exception;

/// What an access raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AccessFault {
    /// The address is not canonical: #SS(0) for a reference to the stack, #GP(0) for any other (SDM
    /// vol. 1, 3.3.7.1; vol. 3, 6.15, interrupts 12 and 13).
    NonCanonical,
    /// This, whatever the access refers to.
    Raised(Exception),
    /// None: the page at this guest-physical address is absent and takes time to come. The
    /// instruction has done nothing yet, and is begun anew when the page is there.
    Absent(Gpa),
}

impl AccessFault {
    /// The same of a reference to the stack.
    pub(crate) const fn on_stack(self) -> Self {
        match self {
            Self::NonCanonical => Self::Raised(Exception::with_code(Vector::SS, 0)),
            Self::Raised(_) | Self::Absent(_) => self,
        }
    }

    /// What is delivered.
    ///
    /// # Errors
    /// Nothing: the page at this address must come first.
    pub(crate) const fn exception(self) -> Result<Exception, Gpa> {
        match self {
            Self::NonCanonical => Ok(Exception::gp(0)),
            Self::Raised(exception) => Ok(exception),
            Self::Absent(gpa) => Err(gpa),
        }
    }
}

impl From<Exception> for AccessFault {
    fn from(exception: Exception) -> Self {
        Self::Raised(exception)
    }
}
