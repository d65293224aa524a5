//! Layout of the local APIC (SDM vol. 3, 11).
