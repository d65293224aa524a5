"""deny.py NUMBER,NUMBER,... MDWE PROGRAM...: runs a program with system calls denied by seccomp, and PR_SET_MDWE if
MDWE is mdwe. Status 99: this host knows no such limits."""
import ctypes, os, struct, sys

EPERM, ENOSYS = 1, 38
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER, FIRST_ARGUMENT = 0, 16
libc = ctypes.CDLL(None, use_errno=True)


def refused(number, error=EPERM):
    """The call of this number fails with `error`."""
    return [(EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | error)]


def refused_if(number, test, value):
    """So does this one with EPERM if its first argument passes the `test`."""
    return [(EQUAL, 0, 4, number), (LOAD, 0, 0, FIRST_ARGUMENT), (test, 0, 1, value),
            (RETURN, 0, 0, ERRNO | EPERM), (RETURN, 0, 0, ALLOW)]


def enforce(refusals):
    """From now on (classic BPF, seccomp(2)), with no new privileges."""
    rules = [(LOAD, 0, 0, NUMBER), *refusals, (RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    program = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0):
        sys.exit(99)


if __name__ == "__main__":
    if sys.argv[2] == "mdwe" and libc.prctl(65, 1, 0, 0, 0):
        sys.exit(99)
    enforce(rule for number in sys.argv[1].split(",") for rule in refused(int(number)))
    os.execv(sys.argv[3], sys.argv[3:])
