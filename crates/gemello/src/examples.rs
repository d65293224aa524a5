//! What the help texts show.

pub(crate) const EXAMPLES: &str = "\
Examples:
  gemello                                        the nucleus: gemello's own small operating system
  gemello run --nucleus demo                     its guided tour of the concepts
  gemello run debian                             a whole Debian, made on first use, and kept
  gemello run busybox                            the small guest: a shell on Debian's kernel
  gemello run --rootfs / -- uname -r             this host's own programs, on another kernel
  gemello run debian -- uname -a                 one command; its output, its exit status
  gemello run debian --system -- systemctl       one command, when systemd has everything up
  sort < names | gemello run debian -- uniq -c   in a pipeline, any bytes both ways
  gemello run oci:image.tar -- sh                an OCI image, or what docker save writes
  gemello run docker://HOST/alpine -- sh         an image of a registry
  gemello run --kernel vmlinuz --initrd initrd.img --memory 1G
  gemello run --system --disk root.ext4          a root file system with systemd, and no kernel
  gemello run --disk system.qcow2                the kernel that lies on the disk
  gemello run --disk system.qcow2 --cloud-init user-data
  gemello run kernel.elf --module init.bin=arg   a Multiboot image
  gemello run machine.toml                       a machine that a file describes
  gemello run web.toml db.toml                   several, in one process; see gemello ps --help
  gemello bench --only user                      how fast it is here, beside the host and QEMU
  gemello doctor                                 what this host offers

On the terminal: Ctrl-A x quits, r resets, s saves (--save), h explains, Ctrl-A sends Ctrl-A.";

pub(crate) const RESTORE_EXAMPLES: &str = "\
Examples:
  gemello run debian --save debian.gm        then Ctrl-A s, at any time
  gemello restore debian.gm                  goes on from there, as often as you like
  gemello restore debian.gm --save later.gm
  gemello restore job.gm > output            a command's streams and exit status go on here

Ctrl-A r boots a restored machine again, from the same files.
A disk that was written since is refused: restore its copy with it, and give --accept-disks.";

pub(crate) const CONTROL_EXAMPLES: &str = "\
Examples:
  gemello run web.toml db.toml               two machines in one process
  gemello ps                                 what runs; --json for programs
  gemello console web                        its console here; Ctrl-A d leaves it
  gemello pause web
  gemello resume web
  gemello stats web                          memory, paging, processor time, switches
  gemello balloon debian 256M                has the guest keep 256M and give the rest back
  gemello run debian --detach --name job -- sleep 60
  gemello logs --follow job                  what it puts out; of one that has ended, the last
  gemello stop web db                        asks their guests to shut down; after 30 s, ends them
  gemello stop web --force                   ends it at once

A machine is reached by the socket NAME.sock in $XDG_RUNTIME_DIR/gemello, else /tmp/gemello-UID.";

pub(crate) const GUEST_EXAMPLES: &str = "\
Examples:
  gemello exec web -- ls -l /srv             its output, its exit status; on a terminal with one
  gemello exec web -e A=b -w /srv -u www-data -- sh
  tar c . | gemello exec web -- tar x -C /srv
  gemello cp web:/etc/os-release .           files and folders, out of the guest
  gemello cp site web:/srv/site              and into it
  gemello cp web:/etc - > etc.tar            as a tar stream
  gemello nc web 80                          a port of the guest's
  gemello ssh web                            as root, where the guest has an SSH server
  gemello ssh me@web uname -a

The agent in the guest does it: gemello's own guests have it. No port of this host's is taken.";

pub(crate) const IMAGE_EXAMPLES: &str = "\
Examples:
  gemello run oci:image.tar                  the image's own command; what it writes is thrown away
  gemello run docker://HOST/alpine:3 -- sh   an image of a registry
  gemello fetch docker://HOST/alpine:3       brings it ahead, or up to date
  gemello run oci:layout:1.2 -- ls -l        an image of several in a folder, another command
  gemello run oci:image.tar --name web       keeps what it writes, for the next run of this name
  gemello run debian --release sid --rm      a whole Debian; what it writes is thrown away
  gemello images                             what is unpacked, what is kept, and what it takes
  gemello rm web                             the machine's disk
  gemello prune                              every image that no machine is kept of

A registry is named before the first slash, or by GEMELLO_REGISTRY for names without one.
Images are unpacked once, to images in $XDG_CACHE_HOME/gemello, else ~/.cache/gemello.";

pub(crate) const FETCH_EXAMPLES: &str = "\
Examples:
  gemello fetch debian --release sid         the newest whole Debian, to build machines on
  gemello fetch busybox                      the kernel for virtual machines, and busybox
  gemello fetch busybox --flavour full       the kernel for physical machines
  gemello fetch docker://HOST/alpine         an image of a registry

apt-get fetches and verifies them. They go to $XDG_CACHE_HOME/gemello, else ~/.cache/gemello;
nothing else of this host is touched.";

pub(crate) const DOCTOR_EXAMPLES: &str = "\
Examples:
  gemello doctor                             the processor, the engine, the cache, the terminal
  gemello doctor > report.txt                to go with a question";

pub(crate) const BENCH_EXAMPLES: &str = "\
Examples:
  gemello bench                              every row, three times: some ten minutes
  gemello bench --list                       what the rows and groups are called
  gemello bench --only user --rounds 1       one group, once
  gemello bench --on native,t1 --json > bench.json";
