"""Runs the rest of its arguments as a container's unprivileged user would: as nobody, with no new privileges, and with
the system calls denied that Docker's documentation says its default seccomp profile blocks."""
import os, sys

sys.dont_write_bytecode = True  # this folder is the sources'
from deny import ANY_BIT, ENOSYS, EQUAL, enforce, refused, refused_if

# acct, add_key, bpf, clock_adjtime, clock_settime, the modules' five, get_mempolicy, iopl, ioperm, kcmp, kexec's two,
# keyctl, lookup_dcookie, mbind, mount, move_pages, nfsservctl, open_by_handle_at, perf_event_open, personality,
# pivot_root, process_vm_readv and writev, ptrace, quotactl, reboot, request_key, set_mempolicy, setns, settimeofday,
# swapon, swapoff, sysfs, _sysctl, umount2, unshare, uselib, userfaultfd, ustat, io_uring's three, the new mount
# interface, chroot, syslog.
DENIED = [163, 248, 321, 305, 227, 174, 175, 176, 178, 313, 239, 172, 173, 312, 246, 320, 250, 212, 237, 165, 279, 180,
          304, 298, 135, 155, 310, 311, 101, 179, 169, 249, 238, 308, 164, 167, 168, 139, 156, 166, 272, 134, 323, 136,
          425, 426, 427, 428, 429, 430, 431, 432, 433, 442, 161, 103]
CLONE, CLONE3, SOCKET, AF_VSOCK = 56, 435, 41, 40
NAMESPACES = 0x7E020000


if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
refusals = [rule for number in DENIED for rule in refused(number)] + refused(CLONE3, ENOSYS)
enforce(refusals + refused_if(CLONE, ANY_BIT, NAMESPACES) + refused_if(SOCKET, EQUAL, AF_VSOCK))
os.execv(sys.argv[1], sys.argv[1:])
